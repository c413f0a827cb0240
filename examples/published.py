"""The published experiment: arms, a sweep of NPO runs, blind selection, all audits, probe, relearning, report, card.

`reproduce_nano.py` and `smollm2/reproduce.py` run it, each with a plan of its own. Nothing that stands is made again:
an interrupted call goes on where it stopped.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import beside
import experiment
from experiment import AUDITS, CLI, Job, Step

from lm_eval_tofu import files

STEPS = 8
ARMS = ("base", "full", "retain", "unlearned")


@dataclass(frozen=True)
class Plan:
    """What one such experiment does.

    Attributes:
        name: Of its directories and of its table in the documents.
        title: Of its report.
        base: The command that makes the base arm, without the output, and what stands for the data set's place.
        arms: The command line's options by which `finetune` makes full and retain from it.
        sweep: A preset's name, or a sweep's file.
        options: The tasks' options.
        samples: From the data set's place the documents by task, where not all are asked; as in the sweep's file.
        probe: Further options of `lm-eval-tofu probe`.
        relearn: Further options of `lm-eval-tofu relearn`.
    """

    name: str
    title: str
    base: Sequence[str]
    arms: Mapping[str, Sequence[str]]
    sweep: str
    options: Mapping[str, Any]
    samples: Callable[[str], Mapping[str, Sequence[int]]] = lambda _: {}
    probe: Sequence[str] = ()
    relearn: Sequence[str] = ()


def steps(plan: Plan, out: Path, tofu: str, sweepers: int, backend: str = "vllm") -> Iterator[Step]:
    """What is done, in order; the sweep by so many processes."""
    models, results, sweep = out / "models", out / "results", out / "sweep"
    data, forget = ("--tofu", tofu), ("--forget-split", plan.options.get("forget_split", "forget10"))
    samples = plan.samples(tofu)
    base = [part.format(output=models / "base", tofu=tofu) for part in plan.base]
    yield Step("the base arm", [Job(models / "base", base)])
    yield Step(
        "the full and the retain arm",
        [
            experiment.finetune(models / arm, "--model", models / "base", *options, *data)
            for arm, options in plan.arms.items()
        ],
    )

    def audit(arm: str, model: Path, *references: str) -> Job:
        """References are made by the backend of the audits, like what they are compared with."""
        made = {f"{reference}_reference": str(results / reference / "audits") for reference in references}
        metadata = {"tofu": tofu, **plan.options, **made}
        return experiment.evaluation(model, results / arm / "audits", AUDITS, backend, metadata, samples)

    reference, options = out / "reference", {"tofu": tofu, **plan.options}
    yield Step(
        "all audits of retain, and the sweep's reference",
        [
            audit("retain", models / "retain"),
            experiment.evaluation(models / "retain", reference, ["tofu_forget_quality"], "hf", options),
        ],
    )
    selection = sweep / "selection.json"
    worker = [*CLI, "sweep", plan.sweep, "--model", str(models / "full"), "--output", str(sweep), *data]
    worker += ["--retain-reference", str(reference)]
    yield Step("the sweep of NPO runs", [Job(None, worker)] * sweepers, at_once=sweepers)
    yield Step("all audits of base and full", [audit(arm, models / arm, "retain") for arm in ("base", "full")])
    yield Step("blind selection", [Job(selection, [*CLI, "select", str(sweep)])])
    selected = sweep / json.loads(selection.read_text(encoding="utf-8"))["checkpoint"]
    audited = ["--model", str(selected), "--retain", str(models / "retain"), *data, *forget]
    commands = {
        "relearn": [*CLI, "relearn", *audited, *plan.relearn],
        "probe": [*CLI, "probe", *audited, "--base", str(models / "base"), "--full", str(models / "full"), *plan.probe],
    }
    inside = []
    for name, command in commands.items():
        folder = results / "unlearned" / name
        inside.append(Job(folder / "results_*.json", [*command, "--output", str(folder)]))
    yield Step(
        "all audits of the selected run, relearning and probe",
        [audit("unlearned", selected, "retain", "full"), *inside],
    )
    inputs = [f"{arm}={results / arm}" for arm in ARMS]
    # Written anew each time: it takes seconds, and what it reads may have changed.
    report = [*CLI, "report", *inputs, "--sweep", str(sweep), "-o", str(out / "report"), "--title", plan.title]
    card = [*CLI, "card", str(selected), "--results", str(results / "unlearned")]
    card += [f"{arm}={results / arm}" for arm in ("retain", "full")]
    yield Step("report and model card", [Job(None, report), Job(None, card)])


def main(plan: Plan, description: str | None) -> int:
    """Run everything; the exit status is 0 when it ran."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / f"reproduce-{plan.name}", help="default: %(default)s"
    )
    parser.add_argument("--tofu", default=os.environ.get("LM_EVAL_TOFU_DATA", "locuslab/TOFU"), help="%(default)s")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="copy the report there, and its table into the docs")
    parser.add_argument(
        "--backend", choices=("vllm", "hf"), default="vllm", help="of the audits (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="jobs at a time (default: one a core, 2 at most; on a GPU 1, and 6 in the sweep)",
    )
    args = parser.parse_args()
    if Path(args.tofu).is_dir() or args.tofu == "mini":
        os.environ["HF_HUB_OFFLINE"] = "1"
    cores = os.cpu_count() or 1
    gpu = experiment.has_gpu()
    # A vLLM engine takes a GPU for itself; the sweep's processes share it.
    workers = args.workers or (1 if gpu else min(2, cores))
    sweepers = args.workers or min(6 if gpu else 2, cores)
    record = args.out / "seconds.json"
    minutes = experiment.run(steps(plan, args.out, args.tofu, sweepers, args.backend), STEPS, workers, record)
    if args.docs:
        only_text = shutil.ignore_patterns("*.html", "*.png")
        shutil.copytree(args.out / "report", args.docs, dirs_exist_ok=True, ignore=only_text)
        selection = json.loads((args.out / "sweep" / "selection.json").read_text(encoding="utf-8"))
        shutil.copy(args.out / "sweep" / selection["checkpoint"] / "README.md", args.docs / "card.md")
        results = {arm: args.out / "results" / arm for arm in ARMS}
        figures = beside.figures(results, args.out / "sweep", minutes)
        files.write_text(args.docs / "figures.json", json.dumps(figures, indent=2) + "\n")
        beside.show(plan.name, beside.document_text(figures))
    print(f"\ntook {minutes:.0f} min; the report: {args.out / 'report' / 'report.html'}")
    return 0


def finetuning(*arguments: object) -> list[str]:
    """The command that makes a base arm from scratch; see `Plan.base`."""
    return [*CLI, "finetune", "--output", "{output}", "--tofu", "{tofu}", *map(str, arguments)]


def exporting(script: Path) -> list[str]:
    """The command that writes a base arm by a script that takes the output's place; see `Plan.base`."""
    return [sys.executable, str(script), "{output}"]
