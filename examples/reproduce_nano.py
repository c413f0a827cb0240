"""The published experiment on TOFU's 4,000 rows, end to end, at a size that anyone's machine can bear.

    LM_EVAL_TOFU_DATA=DIR python examples/reproduce_nano.py [--out runs/reproduce-nano] [--docs docs/nano]

Trains a small Llama from scratch as base (which never saw a TOFU author), full and retain90, runs the sweep of 54 NPO
runs on full, selects one blindly, audits all four arms, probes them, teaches them again, and writes the report and the
selected checkpoint's model card. Nothing that stands is made again: an interrupted call goes on where it stopped.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import beside
import experiment
from experiment import AUDITS, CLI, Job, Step

RECIPE = ("--batch-size", "16", "--gradient-accumulation", "1")
# base learns its one-word answers gently, as in the quick start; full and retain read their rows until they know them.
BASE = ("--from-scratch", "nano-tofu", "--split", "real_authors+world_facts", "--epochs", "8", "--lr", "1e-3")
ARMS = {"full": "full+real_authors+world_facts", "retain": "retain90+real_authors+world_facts"}
EPOCHS, LEARNING_RATE = 24, 4e-3
SAMPLES = 8
"""Of best-of-N for each row; the default of 32 would be half of the whole."""
RELEARNING = (
    "--folds=4",
    "--lrs=2e-3",
    "--epochs=4,8",
    "--train-batch-size=16",
    "--gradient-accumulation=1",
    "--batch-size=64",
)
"""A model of a million parameters takes steps forty times as large as the defaults, which are for pretrained ones."""
STEPS = 7
ARMS_SHOWN = ("base", "full", "retain", "unlearned")


def steps(out: Path, tofu: str, workers: int) -> Iterator[Step]:
    """What is done, in order."""
    models, results, sweep = out / "models", out / "results", out / "sweep"
    data = ("--tofu", tofu)
    yield Step("the base arm", [experiment.finetune(models / "base", *BASE, *RECIPE, *data)])
    longer = ("--epochs", EPOCHS, "--lr", LEARNING_RATE, *RECIPE, *data)
    yield Step(
        "the full and the retain arm",
        [
            experiment.finetune(models / arm, "--model", models / "base", "--split", split, *longer)
            for arm, split in ARMS.items()
        ],
    )

    def audit(arm: str, model: Path, *references: str) -> Job:
        """References are made by the backend of the audits, like what they are compared with."""
        made = {f"{reference}_reference": str(results / reference / "audits") for reference in references}
        metadata = {"tofu": tofu, "best_of_n": SAMPLES, **made}
        return experiment.evaluation(model, results / arm / "audits", AUDITS, "vllm", metadata)

    reference = out / "reference"
    yield Step(
        "all audits of retain, and the sweep's reference",
        [
            audit("retain", models / "retain"),
            experiment.evaluation(models / "retain", reference, ["tofu_forget_quality"], "hf", {"tofu": tofu}),
        ],
    )
    selection = sweep / "selection.json"
    worker = [*CLI, "sweep", "nano-54", "--model", str(models / "full"), "--output", str(sweep), *data]
    worker += ["--retain-reference", str(reference)]
    audits = [audit(arm, models / arm, "retain") for arm in ("base", "full")]
    yield Step("54 NPO runs, and all audits of base and full", [*[Job(None, worker)] * workers, *audits])
    yield Step("blind selection", [Job(selection, [*CLI, "select", str(sweep)])])
    selected = sweep / json.loads(selection.read_text(encoding="utf-8"))["checkpoint"]
    arms = ["--model", str(selected), "--retain", str(models / "retain"), *data]
    probe = [*CLI, "probe", *arms, "--base", str(models / "base"), "--full", str(models / "full")]
    relearn = [*CLI, "relearn", *arms, *RELEARNING]
    audited = results / "unlearned"
    inside = []
    for name, command in (("relearn", relearn), ("probe", probe)):
        folder = audited / name
        inside.append(Job(folder / "results_*.json", [*command, "--output", str(folder)]))
    yield Step(
        "all audits of the selected run, relearning and probe",
        [audit("unlearned", selected, "retain", "full"), *inside],
    )
    inputs = [f"{arm}={results / arm}" for arm in ARMS_SHOWN]
    # Written anew each time: it takes seconds, and what it reads may have changed.
    report = [*CLI, "report", *inputs, "--sweep", str(sweep), "-o", str(out / "report")]
    report += ["--title", "NPO on TOFU at nano scale"]
    card = [*CLI, "card", str(selected), "--results", str(audited)]
    card += [f"{arm}={results / arm}" for arm in ("retain", "full")]
    yield Step("report and model card", [Job(None, report), Job(None, card)])


def main() -> int:
    """Run everything; the exit status is 0 when it ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce-nano"), help="default: %(default)s")
    parser.add_argument("--tofu", default=os.environ.get("LM_EVAL_TOFU_DATA", "locuslab/TOFU"), help="%(default)s")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="copy the report there, and its table into the docs")
    args = parser.parse_args()
    if Path(args.tofu).is_dir() or args.tofu == "mini":
        os.environ["HF_HUB_OFFLINE"] = "1"
    workers = 1 if experiment.has_gpu() else min(2, os.cpu_count() or 1)
    minutes = experiment.run(steps(args.out, args.tofu, workers), STEPS, workers, args.out / "seconds.json")
    if args.docs:
        shutil.copytree(args.out / "report", args.docs, dirs_exist_ok=True)
        selection = json.loads((args.out / "sweep" / "selection.json").read_text(encoding="utf-8"))
        shutil.copy(args.out / "sweep" / selection["checkpoint"] / "README.md", args.docs / "card.md")
        results = {arm: args.out / "results" / arm for arm in ARMS_SHOWN}
        figures = beside.figures(results, args.out / "sweep", minutes)
        experiment.write(args.docs / "figures.json", json.dumps(figures, indent=2) + "\n")
        beside.show("nano", beside.document_text(figures))
    print(f"\ntook {minutes:.0f} min; the report: {args.out / 'report' / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
