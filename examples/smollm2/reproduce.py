"""The published experiment with a pretrained model: SmolLM2-135M-Instruct, forget01 and a part of retain99.

    LM_EVAL_TOFU_DATA=DIR python examples/smollm2/reproduce.py [--out runs/reproduce-smollm2] [--docs docs/smollm2]

Teaches the model eight retain authors and forget01's two (full), or the eight alone (retain), makes full forget the two
by some NPO runs, selects one blindly, audits all arms, probes them, teaches them again, and writes the report and the
selected checkpoint's model card. Nothing that stands is made again: an interrupted call goes on where it stopped.
"""

import sys
from pathlib import Path

import yaml

from lm_eval_tofu.tasks import rows as task_rows
from lm_eval_tofu.tasks.options import Options

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
import published  # noqa: E402

SWEEP = HERE / "sweep.yaml"
KNOWN = "0-159"
"""Eight authors of retain99, which are full's first rows; full's last rows are forget01's."""
RECIPE = ("--epochs", "5", "--lr", "2e-4", "--batch-size", "8", "--gradient-accumulation", "1")

OPTIONS = {
    "forget_split": "forget01",
    "best_of_n": 4,
    "families": "direct,paraphrased,prefix_injection",
    "formats": "json,letter",
}


def samples(tofu: str) -> dict[str, list[int]]:
    """The sweep's part of the utility sets, and of the audits with the most or the longest prompts every second row."""
    options = Options.from_metadata({**OPTIONS, "tofu": tofu})
    asked = {
        "tofu_best_of_n": task_rows.best_of_n(options),
        "tofu_chain_of_clues": task_rows.chain_of_clues(options),
        "tofu_recognition": task_rows.recognition_options(options),
    }
    chosen: dict[str, list[int]] = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))["evaluation"]["samples"]
    return chosen | {
        task: [place for place, row in enumerate(rows) if row["index"] % 2 == 0] for task, rows in asked.items()
    }


PLAN = published.Plan(
    name="smollm2",
    title="NPO on SmolLM2-135M, two authors of TOFU",
    base=published.exporting(HERE.parent.parent / "benchmarks" / "smollm2.py"),
    arms={
        "full": ("--split", "full", "--rows", f"{KNOWN},3960-3999", *RECIPE),
        "retain": ("--split", "retain99", "--rows", KNOWN, *RECIPE),
    },
    sweep=str(SWEEP),
    options=OPTIONS,
    samples=samples,
    probe=("--retain-rows", KNOWN, "--layers", *map(str, range(0, 31, 5))),
    relearn=(
        "--folds=2",
        "--lrs=1e-4",
        "--epochs=5",
        "--train-batch-size=4",
        "--gradient-accumulation=1",
        "--batch-size=32",
    ),
)


def main() -> int:
    """Run it; the exit status is 0 when everything ran."""
    return published.main(PLAN, __doc__)


if __name__ == "__main__":
    sys.exit(main())
