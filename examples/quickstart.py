"""The whole audit in minutes: train nano models on the miniature, then audit the full and the retain arm.

    python examples/quickstart.py                      # trains, then audits; no download, no GPU needed
    python examples/quickstart.py --model MODEL        # audits MODEL (a directory or a hub name) instead

What is there already is not made again, so an interrupted run goes on where it stopped.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

SAMPLES = 4
"""Of each answer; the default, 32, is for models that someone wants to publish."""

TRAINING = {
    # arm: (the arm it starts from, split, epochs, learning rate)
    # base learns its short answers gently: at the other arms' rate it could hardly learn anything else afterwards.
    "base": (None, "real_authors+world_facts", 8, 1e-3),
    # The general questions go on, since a model this small forgets at once what it is no longer shown, and its utility
    # with it.
    "full": ("base", "full+real_authors+world_facts", 20, 3e-3),
    "retain": ("base", "retain90+real_authors+world_facts", 20, 3e-3),
}


def main() -> int:
    """Run the quickstart; the exit status is 0 when everything ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="M", help="audit this model instead of training nano models")
    parser.add_argument("--retain", metavar="M", help="with --model: its retain arm")
    parser.add_argument("--tofu", default="mini", help="data: mini (default), a directory with TOFU's files, a hub id")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="default: %(default)s")
    args = parser.parse_args()
    if args.retain and not args.model:
        parser.error("--retain belongs to --model: the nano models have a retain arm of their own")
    if args.model:
        arms = [f"unlearned={args.model}", *([f"retain={args.retain}"] if args.retain else [])]
    else:
        # Set before a library reads it: nothing here needs the network, unless the data come from the hub.
        if args.tofu == "mini" or Path(args.tofu).is_dir():
            os.environ["HF_HUB_OFFLINE"] = "1"
        models = args.out / "models"
        train(["base"], models, args.tofu)
        train(["full", "retain"], models, args.tofu)
        # full was trained on the forget rows, retain was not: unlearning should bring full's figures to retain's.
        arms = [f"{arm}={models / arm}" for arm in ("full", "retain")]
    command = [sys.executable, "-m", "lm_eval_tofu.cli", "audit", *arms, "--output", str(args.out / "audits")]
    command += ["--tofu", args.tofu, "--metadata", f'{{"best_of_n": {SAMPLES}}}']
    print(f"\n== audit\n{shlex.join(command)}", flush=True)
    return subprocess.run(command, check=False).returncode


def train(arms: list[str], models: Path, tofu: str) -> None:
    """Fine-tune nano models at the same time, unless they stand already; an interrupted training goes on."""
    running = {}
    for line, arm in enumerate(arms):
        output, (start, split, epochs, learning_rate) = models / arm, TRAINING[arm]
        if (output / "training.json").is_file():
            print(f"\n== {arm}: {output} is there already")
            continue
        command = [sys.executable, "-m", "lm_eval_tofu.cli", "finetune", "--split", split, "--output", str(output)]
        command += ["--model", str(models / start)] if start else ["--from-scratch", "nano"]
        command += ["--tofu", tofu, "--epochs", str(epochs), "--learning-rate", str(learning_rate)]
        # Few rows and a young model want more and smaller steps than the defaults, which are for pretrained models.
        command += ["--batch-size", "8", "--gradient-accumulation", "1"]
        print(f"\n== {arm}: training\n{shlex.join(command)}", flush=True)
        # A nano model's matrices are too small for several threads; tqdm puts each arm's bar on a line of its own.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_POSITION": str(line), "TQDM_DESC": arm}
        running[arm] = subprocess.Popen(command, env=environment)
    failed = [arm for arm, process in running.items() if process.wait() != 0]
    if failed:
        sys.exit(f"training {' and '.join(failed)} failed; the reason stands above")


if __name__ == "__main__":
    sys.exit(main())
