"""The command `lm-eval-tofu`: a table of subcommands, whose modules are imported when they are called."""

import argparse
import hashlib
import importlib
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import __version__, files
from lm_eval_tofu.errors import OptionError, TofuError
from lm_eval_tofu.presets import PRESETS_DIR, change_backend

PRESET_KINDS = {
    "lm_eval": "lm_eval run --config FILE",
    "accelerate": "accelerate launch --config_file FILE -m lm_eval_tofu.cli unlearn ...",
    "sweeps": "lm-eval-tofu sweep NAME",
}
"""Directories of presets that are handed out, and what takes them."""


def tasks_path(_: argparse.Namespace) -> None:
    """Print the directory of the tasks."""
    from lm_eval_tofu.tasks import TASKS_DIR

    print(TASKS_DIR)


def presets(args: argparse.Namespace) -> None:
    """List the presets, print the path of one, or write a copy of a run config that is filled in."""
    kinds = {kind: sorted((PRESETS_DIR / kind).glob("*.yaml"), key=lambda path: path.stem) for kind in PRESET_KINDS}
    paths = {path.stem: path for found in kinds.values() for path in found}
    changes = [f"--{name}" for name in ("pretrained", "backend", "output") if getattr(args, name) is not None]
    if args.name is None:
        if changes:
            raise OptionError(f"presets {changes[0]} needs a preset's NAME: use one of {', '.join(paths)}")
        for kind, found in kinds.items():
            print(f"{PRESET_KINDS[kind]}")
            for path in found:
                print(f"  {path.stem:24} {_first_comment(path)}")
    elif args.name not in paths:
        raise OptionError(f"preset {args.name!r} is unknown: use one of {', '.join(paths)}")
    elif changes and paths[args.name] not in kinds["lm_eval"]:
        raise OptionError(
            f"presets {changes[0]} fills in run configs of lm_eval, and {args.name} is none: leave it out, or use one "
            f"of {', '.join(path.stem for path in kinds['lm_eval'])}"
        )
    else:
        print(_filled_in(paths[args.name], args) if changes else paths[args.name])


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _filled_in(preset: Path, args: argparse.Namespace) -> Path:
    """Write the copy: lm_eval's --model_args replaces a config file's model_args as a whole, so they go into a file."""
    text = preset.read_text(encoding="utf-8")
    if args.pretrained is not None or args.backend is not None:
        import yaml

        config = yaml.safe_load(text)
        if args.pretrained is not None:
            config["model_args"]["pretrained"] = args.pretrained
        if args.backend not in (None, config["model"]):
            change_backend(config, args.backend)
        body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        text = f"# {_first_comment(preset)}\n# A copy by `lm-eval-tofu presets`; the reasons stand in {preset}\n{body}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    output = args.output or Path(tempfile.gettempdir()) / "lm-eval-tofu" / f"{preset.stem}-{digest}.yaml"
    _write(output, text)
    return Path(output)


def _write(path: Path, text: str) -> None:
    try:
        files.write_text(path, text)
    except OSError as error:
        raise OptionError(f"--output {path} cannot be written ({error}): name another file") from error


def data(args: argparse.Namespace) -> None:
    """Read and check every configuration of the data set."""
    from lm_eval_tofu import tofu

    source = tofu.resolve_source(args.tofu, args.revision)
    lines = [(name, len(tofu.load(name, source)), tofu.fingerprint(source, name)) for name in tofu.CONFIGS]
    print(f"source: {source} ({source.kind})")
    print(f"{'config':24} {'rows':>5}  fingerprint")
    for name, rows, digest in lines:
        print(f"{name:24} {rows:5}  {digest}")


def explain(args: argparse.Namespace) -> None:
    """Print why a response leaks, or does not; see `lm_eval_tofu.scoring.explain`."""
    from lm_eval_tofu import scoring

    print(scoring.explain(args))


def sweep(args: argparse.Namespace) -> int:
    """Work on a sweep, or show its state; see `lm_eval_tofu.unlearn.sweep`."""
    from lm_eval_tofu.unlearn import sweep as module
    from lm_eval_tofu.unlearn import sweep_config

    *action, source = args.words
    if action not in ([], ["status"]):
        raise OptionError(f"sweep {' '.join(args.words)}: give SWEEP.yaml, or status SWEEP.yaml")
    names = ("model", "output", "retain_reference", "tofu", "forget_split")
    config = sweep_config.read_config(source, {name: getattr(args, name) for name in names})
    states = module.runs(config) if action else module.sweep(config, args.keep)
    while True:
        if args.watch is not None and sys.stdout.isatty():
            print("\033[2J\033[H", end="")
        print("\n".join(module.table(states)), flush=True)
        if not action or args.watch is None or all(state.state in ("complete", "failed") for state in states):
            return 1 if any(state.state == "failed" for state in states) else 0
        time.sleep(args.watch)
        states = module.runs(config)


def select(args: argparse.Namespace) -> None:
    """Select a sweep's best run; see `lm_eval_tofu.unlearn.select`."""
    from lm_eval_tofu.unlearn import select as module

    selection = module.select(args.sweep, not_blind=args.not_blind, allow_missing=args.allow_missing)
    print("\n".join(module.table(selection)))
    print(f"written: {args.sweep / module.SELECTION_FILE}")


def audit(args: argparse.Namespace) -> None:
    """Evaluate, audit and report; see `lm_eval_tofu.audit.run`."""
    from lm_eval_tofu.audit import run
    from lm_eval_tofu.audit.options import AuditOptions
    from lm_eval_tofu.unlearn import options

    print("\n".join(run.audit(args.models, AuditOptions(**options.values_of(args, AuditOptions)))))


def white_box(args: argparse.Namespace) -> None:
    """Run a white-box audit: the function with its command's name in the module of that name."""
    from lm_eval_tofu.unlearn import options

    module = importlib.import_module(f"lm_eval_tofu.whitebox.{args.command}")
    config_class = _imported(str(COMMANDS[args.command].arguments))
    file = getattr(module, args.command)(config_class(**options.values_of(args, config_class)))
    print("\n".join(module.table(files.read_json(file))))
    print(f"written: {file}")


def report(args: argparse.Namespace) -> None:
    """Write a report; see `lm_eval_tofu.report.render`."""
    from lm_eval_tofu.report import render

    written = render.run(args)
    print(f"{written.html}\n{written.markdown}")


def card(args: argparse.Namespace) -> None:
    """Fill in a model card; see `lm_eval_tofu.report.card`."""
    from lm_eval_tofu.report import card as module

    print(module.run(args))


def _presets_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="preset to print the path of; none: list them all")
    parser.add_argument("--pretrained", metavar="MODEL", help="write a copy with this model: a directory or hub id")
    parser.add_argument("--backend", choices=("hf", "vllm"), help="write a copy for this backend")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the copy goes (default: temporary)")


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tofu", metavar="SOURCE", help="mini, a directory or a hub id")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the hub")


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="[status] SWEEP", help="a YAML file, or a preset such as npo-54")
    for name, what in (
        ("model", "the checkpoint to unlearn from"),
        ("output", "directory of the sweep"),
        ("retain-reference", "results of tofu_forget_quality on the retain arm"),
        ("tofu", "mini, a directory or a hub id"),
        ("forget-split", "forget01, forget05 or forget10"),
    ):
        parser.add_argument(f"--{name}", metavar="X", help=f"{what} (instead of the file's)")
    parser.add_argument("--keep", default="all", metavar="K", help="checkpoints to keep: all (default), best or none")
    parser.add_argument("--watch", type=float, metavar="S", help="with status: show it anew every S seconds")


def _select_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, metavar="DIR", help="the sweep's directory")
    parser.add_argument("--not-blind", action="store_true", help="although leak audits lie there; recorded")
    parser.add_argument("--allow-missing", action="store_true", help="although runs have no results; recorded")


class Command(NamedTuple):
    """A subcommand; functions of other modules are written `module:function`, and imported when it is called.

    Attributes:
        help: What it does.
        run: Does it; what it returns is the exit code, 0 for None.
        arguments: Declares its options on a parser; or a dataclass, whose fields are options.
        parent: Makes a parser with its options, instead of `arguments`.
        needs: Modules that it needs beside the package's own requirements.
        extra: The extra that installs them.
    """

    help: str
    run: Callable[[argparse.Namespace], int | None] | str
    arguments: Callable[[argparse.ArgumentParser], None] | str | None = None
    parent: str | None = None
    needs: Sequence[str] = ()
    extra: str = "unlearn"


COMMANDS = {
    "tasks-path": Command("print the tasks' directory, for lm_eval --include_path", tasks_path),
    "presets": Command("list or print run configs, for lm_eval run --config", presets, _presets_arguments),
    "data": Command("check the data set, and print its rows and fingerprints", data, _data_arguments),
    "score": Command(
        "judge responses in a file: leaked or not, and which facts",
        "lm_eval_tofu.scoring:score_file",
        "lm_eval_tofu.scoring:add_score_arguments",
    ),
    "explain": Command(
        "show why one response counts as a leak, or does not", explain, "lm_eval_tofu.scoring:add_explain_arguments"
    ),
    "audit": Command(
        "evaluate and audit models with all commands that are needed, then write the report",
        audit,
        "lm_eval_tofu.audit.options:add_arguments",
        needs=("lm_eval", "torch", "accelerate", "matplotlib", "jinja2", "yaml"),
        extra="hf,unlearn,report",
    ),
    "finetune": Command(
        "fine-tune a model on TOFU (base, full and retain arms)",
        "lm_eval_tofu.unlearn.finetune:run",
        parent="lm_eval_tofu.unlearn.finetune:parser",
        needs=("torch", "accelerate"),
    ),
    "unlearn": Command(
        "unlearn a forget split of TOFU (NPO and others)",
        "lm_eval_tofu.unlearn.unlearning:run",
        parent="lm_eval_tofu.unlearn.unlearning:parser",
        needs=("torch", "accelerate"),
    ),
    "sweep": Command(
        "train and evaluate every point of a grid; or show the state of the runs",
        sweep,
        _sweep_arguments,
        needs=("torch", "accelerate"),
    ),
    "select": Command("pick a sweep's unlearned model, before any leak audit", select, _select_arguments),
    "memorization": Command(
        "memorised answers, and membership inference against rows that no arm has seen",
        white_box,
        "lm_eval_tofu.whitebox.memorization:MemorizationConfig",
        needs=("torch",),
    ),
    "depth": Command(
        "at which layers forgotten facts are still in the hidden states (UDS, logit lens)",
        white_box,
        "lm_eval_tofu.whitebox.depth:DepthConfig",
        needs=("torch",),
    ),
    "probe": Command(
        "read from hidden states what a model still knows",
        white_box,
        "lm_eval_tofu.whitebox.probe:ProbeConfig",
        needs=("torch",),
    ),
    "report": Command(
        "set the results of any number of arms side by side",
        report,
        "lm_eval_tofu.report.render:add_arguments",
        needs=("matplotlib", "jinja2", "yaml"),
        extra="report",
    ),
    "card": Command(
        "fill in a checkpoint's model card with its results",
        card,
        "lm_eval_tofu.report.card:add_arguments",
        needs=("jinja2", "huggingface_hub", "yaml"),
        extra="report",
    ),
    "relearn": Command(
        "teach part of what was forgotten again, and see what else comes back",
        white_box,
        "lm_eval_tofu.whitebox.relearn:RelearnConfig",
        needs=("torch", "accelerate"),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None takes those of the process.

    Returns:
        The exit code: 0, or 2 for what the user can put right.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] in (["finetune"], ["unlearn"]):
            from lm_eval_tofu.unlearn import options

            arguments = options.with_config_file(arguments)
        args = _parser(arguments[0] if arguments else "").parse_args(arguments)
        return _imported(COMMANDS[args.command].run)(args) or 0
    except TofuError as error:
        print(f"lm-eval-tofu: error: {error}", file=sys.stderr)
        return 2


def _parser(chosen: str) -> argparse.ArgumentParser:
    """All commands, with the options of the chosen one."""
    parser = argparse.ArgumentParser(prog="lm-eval-tofu", description="Audit machine unlearning on TOFU.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        settings: dict[str, Any] = {"help": command.help, "description": command.help}
        if name == chosen:
            _check_installed(name, command)
            if command.parent is not None:
                parent = _imported(command.parent)()
                settings |= {"parents": [parent], "usage": parent.usage}
        added = commands.add_parser(name, **settings)
        if name == chosen and command.arguments is not None:
            declared = _imported(command.arguments)
            if isinstance(declared, type):
                from lm_eval_tofu.unlearn import options

                options.add_fields(added, declared)
            else:
                declared(added)
    return parser


def _imported(named: Callable[..., Any] | str) -> Any:
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)


def _check_installed(name: str, command: Command) -> None:
    missing = [module for module in command.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise OptionError(f"{name} needs {' and '.join(missing)}: pip install 'lm-eval-tofu[{command.extra}]'")


if __name__ == "__main__":
    sys.exit(main())
