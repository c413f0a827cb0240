"""The command `lm-eval-tofu`: one short function a subcommand, each with its heavy imports inside."""

import argparse
import hashlib
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu import __version__, files
from lm_eval_tofu.errors import OptionError, TofuError

PRESETS_DIR = Path(__file__).parent / "presets"
PRESET_KINDS = {
    "lm_eval": "lm_eval run --config FILE",
    "accelerate": "accelerate launch --config_file FILE -m lm_eval_tofu.cli unlearn ...",
    "sweeps": "lm-eval-tofu sweep NAME",
}
"""Directories of presets that are handed out, and what takes them."""

_KV_CACHE_ON_CPU = 2 << 30
_ONLY_VLLM = (
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_num_seqs",
    "seed",
)
_ONLY_HF = ("attn_implementation", "device_map", "logits_cache", "softmax_dtype")


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
        args = _parser(arguments).parse_args(arguments)
        return int(args.run(args))
    except TofuError as error:
        print(f"lm-eval-tofu: error: {error}", file=sys.stderr)
        return 2


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lm-eval-tofu", description="Audit machine unlearning on TOFU.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = _add(commands, "tasks-path", "print the tasks' directory, for lm_eval --include_path", tasks_path)

    command = _add(commands, "presets", "list or print run configs, for lm_eval run --config", presets)
    command.add_argument("name", nargs="?", metavar="NAME", help="preset to print the path of; none: list them all")
    command.add_argument("--pretrained", metavar="MODEL", help="write a copy with this model: a directory or hub id")
    command.add_argument("--backend", choices=("hf", "vllm"), help="write a copy for this backend")
    command.add_argument("--output", type=Path, metavar="FILE", help="where the copy goes (default: temporary)")

    command = _add(commands, "data", "check the data set, and print its rows and fingerprints", data)
    command.add_argument("--tofu", metavar="SOURCE", help="mini, a directory or a hub id")
    command.add_argument("--revision", metavar="R", help="branch, tag or commit on the hub")

    command = _add(commands, "score", "judge responses in a file: leaked or not, and which facts", score)
    if arguments[:1] == ["score"]:
        from lm_eval_tofu import scoring

        scoring.add_score_arguments(command)

    command = _add(commands, "explain", "say why one response counts as a leak, or does not", explain)
    if arguments[:1] == ["explain"]:
        from lm_eval_tofu import scoring

        scoring.add_explain_arguments(command)

    command = _add(commands, "finetune", "fine-tune a model on TOFU (base, full and retain arms)", finetune)
    if arguments[:1] == ["finetune"]:  # the options come from a module that needs torch
        _need("finetune", "torch", "accelerate")
        from lm_eval_tofu.unlearn import finetune as module

        module.add_arguments(command)

    command = _add(commands, "unlearn", "unlearn a forget split of TOFU (NPO and others)", unlearn)
    if arguments[:1] == ["unlearn"]:
        _need("unlearn", "torch", "accelerate")
        from lm_eval_tofu.unlearn import unlearning

        unlearning.add_arguments(command)

    command = _add(commands, "sweep", "train and evaluate every point of a grid; or show how far that is", sweep)
    command.add_argument("words", nargs="+", metavar="[status] SWEEP", help="a YAML file, or a preset such as npo-54")
    for name, what in (
        ("model", "the checkpoint to unlearn from"),
        ("output", "directory of the sweep"),
        ("retain-reference", "results of tofu_forget_quality on the retain arm"),
        ("tofu", "mini, a directory or a hub id"),
        ("forget-split", "forget01, forget05 or forget10"),
    ):
        command.add_argument(f"--{name}", metavar="X", help=f"{what} (instead of the file's)")
    command.add_argument("--storage", metavar="URL", help="Optuna storage (default: SQLite in the sweep's directory)")
    command.add_argument("--keep", default="all", metavar="K", help="checkpoints to keep: all (default), best or none")
    command.add_argument("--watch", type=float, metavar="S", help="with status: show it anew every S seconds")

    command = _add(commands, "select", "pick a sweep's unlearned model, before any leak audit", select)
    command.add_argument("sweep", type=Path, metavar="DIR", help="the sweep's directory")
    command.add_argument("--not-blind", action="store_true", help="although leak audits lie there; recorded")
    command.add_argument("--allow-missing", action="store_true", help="although runs have no results; recorded")

    command = _add(commands, "probe", "read from hidden states what a model still knows", probe)
    if arguments[:1] == ["probe"]:
        _need("probe", "torch")
        from lm_eval_tofu.whitebox import probe as probing

        probing.add_arguments(command)

    command = _add(commands, "report", "set the results of any number of arms side by side", report)
    if arguments[:1] == ["report"]:
        _need("report", "matplotlib", "jinja2", "yaml", extra="report")
        from lm_eval_tofu.report import render

        render.add_arguments(command)

    command = _add(commands, "card", "fill in a checkpoint's model card with its results", card)
    if arguments[:1] == ["card"]:
        _need("card", "jinja2", "huggingface_hub", "yaml", extra="report")
        from lm_eval_tofu.report import card as cards

        cards.add_arguments(command)

    command = _add(commands, "relearn", "teach part of what was forgotten again, and see what else comes back", relearn)
    if arguments[:1] == ["relearn"]:
        _need("relearn", "torch", "accelerate")
        from lm_eval_tofu.whitebox import relearn as relearning

        relearning.add_arguments(command)
    return parser


def _add(commands: Any, name: str, summary: str, run: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    return command


def _need(command: str, *modules: str, extra: str = "unlearn") -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise OptionError(f"{command} needs {' and '.join(missing)}: pip install 'lm-eval-tofu[{extra}]'")


def tasks_path(_: argparse.Namespace) -> int:
    """Print the directory of the tasks."""
    from lm_eval_tofu.tasks import TASKS_DIR

    print(TASKS_DIR)
    return 0


def presets(args: argparse.Namespace) -> int:
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
    return 0


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
            _change_backend(config, args.backend)
        body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        text = f"# {_first_comment(preset)}\n# A copy by `lm-eval-tofu presets`; the reasons stand in {preset}\n{body}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    output = args.output or Path(tempfile.gettempdir()) / "lm-eval-tofu" / f"{preset.stem}-{digest}.yaml"
    _write(output, text)
    return Path(output)


def _change_backend(config: dict[str, Any], backend: str) -> None:
    """Give model_args the names that the other backend has for them, and leave out what only the first one knows."""
    model_args = config["model_args"]
    on_cpu = config.get("device") == "cpu"
    config["model"] = backend
    if backend == "hf":
        _rename(model_args, "max_model_len", "max_length", drop=_ONLY_VLLM)
        model_args["softmax_dtype"] = "float32"  # as vLLM computes log-probabilities
        config["batch_size"] = 16 if on_cpu else "auto"
        if not on_cpu:
            config.pop("device", None)  # lm_eval's default is the first GPU
    else:
        _rename(model_args, "max_length", "max_model_len", drop=_ONLY_HF)
        model_args["enable_prefix_caching"] = False
        if on_cpu:
            model_args |= {"enforce_eager": True, "kv_cache_memory_bytes": _KV_CACHE_ON_CPU}
        else:
            model_args["gpu_memory_utilization"] = 0.85
        config["batch_size"] = "auto"


def _rename(model_args: dict[str, Any], old: str, new: str, *, drop: Sequence[str]) -> None:
    for name in drop:
        model_args.pop(name, None)
    if old in model_args:
        model_args[new] = model_args.pop(old)


def _write(path: Path, text: str) -> None:
    try:
        files.write_text(path, text)
    except OSError as error:
        raise OptionError(f"--output {path} cannot be written ({error}): name another file") from error


def data(args: argparse.Namespace) -> int:
    """Read and check every configuration of the data set."""
    from lm_eval_tofu import tofu

    source = tofu.resolve_source(args.tofu, args.revision)
    lines = [(name, len(tofu.load(name, source)), tofu.fingerprint(source, name)) for name in tofu.CONFIGS]
    print(f"source: {source} ({source.kind})")
    print(f"{'config':24} {'rows':>5}  fingerprint")
    for name, rows, digest in lines:
        print(f"{name:24} {rows:5}  {digest}")
    return 0


def score(args: argparse.Namespace) -> int:
    """Score the responses of a file; see `lm_eval_tofu.scoring.score_file`."""
    from lm_eval_tofu import scoring

    return scoring.score_file(args)


def explain(args: argparse.Namespace) -> int:
    """Print why a response leaks, or does not; see `lm_eval_tofu.scoring.explain`."""
    from lm_eval_tofu import scoring

    print(scoring.explain(args))
    return 0


def finetune(args: argparse.Namespace) -> int:
    """Fine-tune a model; see `lm_eval_tofu.unlearn.finetune`."""
    from lm_eval_tofu.unlearn import finetune as module

    return int(module.run(args))


def unlearn(args: argparse.Namespace) -> int:
    """Unlearn a forget split; see `lm_eval_tofu.unlearn.unlearning`."""
    from lm_eval_tofu.unlearn import unlearning

    return int(unlearning.run(args))


def sweep(args: argparse.Namespace) -> int:
    """Work on a sweep, or show where it stands; see `lm_eval_tofu.unlearn.sweep`."""
    _need("sweep", "optuna")
    from lm_eval_tofu.unlearn import sweep as module

    *action, source = args.words
    if action not in ([], ["status"]):
        raise OptionError(f"sweep {' '.join(args.words)}: give SWEEP.yaml, or status SWEEP.yaml")
    names = ("model", "output", "retain_reference", "tofu", "forget_split")
    config = module.read_config(source, {name: getattr(args, name) for name in names})
    if action:
        states = _watch_sweep(module, config, args)
    else:
        states = module.sweep(config, args.storage, args.keep)
        print("\n".join(module.table(states)))
    return 1 if any(state.state == "failed" for state in states) else 0


def _watch_sweep(module: Any, config: Any, args: argparse.Namespace) -> list[Any]:
    study = module.open_queue(config, args.storage)
    while True:
        states: list[Any] = module.runs(config, study)
        if args.watch is not None and sys.stdout.isatty():
            print("\033[2J\033[H", end="")
        print("\n".join(module.table(states)), flush=True)
        if args.watch is None or all(state.state in ("complete", "failed") for state in states):
            return states
        time.sleep(args.watch)


def select(args: argparse.Namespace) -> int:
    """Select a sweep's best run; see `lm_eval_tofu.unlearn.select`."""
    from lm_eval_tofu.unlearn import select as module

    selection = module.select(args.sweep, not_blind=args.not_blind, allow_missing=args.allow_missing)
    print("\n".join(module.table(selection)))
    print(f"written: {args.sweep / module.SELECTION_FILE}")
    return 0


def probe(args: argparse.Namespace) -> int:
    """Probe hidden states; see `lm_eval_tofu.whitebox.probe`."""
    from lm_eval_tofu.whitebox import probe as module

    file = module.probe(module.config_of(args))
    print("\n".join(module.table(files.read_json(file))))
    print(f"written: {file}")
    return 0


def report(args: argparse.Namespace) -> int:
    """Write a report; see `lm_eval_tofu.report.render`."""
    from lm_eval_tofu.report import render

    written = render.run(args)
    print(f"{written.html}\n{written.markdown}")
    return 0


def card(args: argparse.Namespace) -> int:
    """Fill in a model card; see `lm_eval_tofu.report.card`."""
    from lm_eval_tofu.report import card as module

    print(module.run(args))
    return 0


def relearn(args: argparse.Namespace) -> int:
    """Relearn parts of the forget split, and report what else comes back; see `lm_eval_tofu.whitebox.relearn`."""
    from lm_eval_tofu.whitebox import relearn as module

    file = module.run(args)
    print("\n".join(module.table(files.read_json(file))))
    print(f"written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
