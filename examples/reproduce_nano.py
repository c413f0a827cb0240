"""The published experiment on TOFU's 4,000 rows, end to end, with models that train on any machine.

    LM_EVAL_TOFU_DATA=DIR python examples/reproduce_nano.py [--out runs/reproduce-nano] [--docs docs/nano]

Trains a small Llama from scratch as base (which never saw a TOFU author), full and retain90, runs the sweep of 54 NPO
runs on full, selects one blindly, audits all four arms, probes them, teaches them again, and writes the report and the
selected checkpoint's model card. Nothing that stands is made again: an interrupted call goes on where it stopped.
"""

import sys

import published

RECIPE = ("--batch-size", "16", "--gradient-accumulation", "1")
GENERAL = "real_authors+world_facts"
LONGER = ("--epochs", "24", "--lr", "4e-3", *RECIPE)

PLAN = published.Plan(
    name="nano",
    title="NPO on TOFU at nano scale",
    # base learns its short answers gently, as in the quick start; full and retain read their rows until they know
    # them.
    base=published.finetuning(
        "--from-scratch", "nano-tofu", "--split", GENERAL, "--epochs", "8", "--lr", "1e-3", *RECIPE
    ),
    arms={
        "full": ("--split", f"full+{GENERAL}", *LONGER),
        "retain": ("--split", f"retain90+{GENERAL}", *LONGER),
    },
    sweep="nano-54",
    # Of best-of-N for each row; the default of 32 would be half of the whole.
    options={"best_of_n": 8},
    # A model of a million parameters takes steps forty times as large as the defaults, which are for pretrained ones.
    relearn=(
        "--folds=4",
        "--lrs=2e-3",
        "--epochs=4,8",
        "--train-batch-size=16",
        "--gradient-accumulation=1",
        "--batch-size=64",
    ),
)


def main() -> int:
    """Run it; the exit status is 0 when everything ran."""
    return published.main(PLAN, __doc__)


if __name__ == "__main__":
    sys.exit(main())
