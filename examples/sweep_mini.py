"""The published experiment's training side in miniature: arms, a sweep of 54 NPO runs by two workers, blind selection.

    python examples/sweep_mini.py [--out runs/sweep-mini] [--docs docs/reproduce.md]

Nothing finished is made again: an interrupted call goes on where it stopped. With `--docs` the table of the result
replaces the one between the markers of that file.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import beside
import quickstart

WORKERS = 2
SETTINGS: dict[str, Any] = {"model_args": {"dtype": "float32"}, "batch_size": 64, "device": "cpu"}


def main() -> int:
    """Train, sweep, select and show; the exit status is 0 when everything ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/sweep-mini"), help="default: %(default)s")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the table into this document")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Nano matrices are too small for several threads; several workers use the cores instead.
    os.environ["OMP_NUM_THREADS"] = "1"
    models, results = args.out / "models", args.out / "results"
    quickstart.train(["base"], models, "mini")
    quickstart.train(["full", "retain"], models, "mini")
    started = time.monotonic()
    metrics = {"retain": evaluate(models / "retain", results / "retain", {"tofu": "mini"})}
    reference = {"tofu": "mini", "retain_reference": str(results / "retain")}
    metrics["full"] = evaluate(models / "full", results / "full", reference)
    command = [sys.executable, "-m", "lm_eval_tofu.cli", "sweep", "mini-54", "--model", str(models / "full")]
    command += ["--retain-reference", str(results / "retain"), "--output", str(args.out / "sweep")]
    print(f"\n== sweep, {WORKERS} workers\n{shlex.join(command)}", flush=True)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    workers = [subprocess.Popen(command, **(silent if number else {})) for number in range(WORKERS)]
    statuses = [worker.wait() for worker in workers]
    if any(statuses):
        return 1
    select = [sys.executable, "-m", "lm_eval_tofu.cli", "select", str(args.out / "sweep")]
    print(f"\n== selection\n{shlex.join(select)}", flush=True)
    subprocess.run(select, check=True)
    selection = json.loads((args.out / "sweep" / "selection.json").read_text(encoding="utf-8"))
    selected = args.out / "sweep" / selection["checkpoint"]
    metrics["selected"] = evaluate(selected, results / "selected", reference)
    minutes = (time.monotonic() - started) / 60
    print(f"\nsweep and selection took {minutes:.1f} min; the selected checkpoint: {selected}")
    lines = [
        *note(args.out / "sweep"),
        "",
        *arms_table(metrics),
        "",
        *runs_table(selection),
        "",
        *equals_note(selection),
    ]
    print("\n" + "\n".join(lines))
    if args.docs:
        beside.show("sweep-mini", "\n".join(lines), args.docs)
    return 0


def evaluate(model: Path, output: Path, metadata: dict[str, str]) -> dict[str, float]:
    """Evaluate a checkpoint with the benchmark's two tasks, unless it has results; metrics by name, NaN for null."""
    from lm_eval_tofu.evaluation import evaluate as run
    from lm_eval_tofu.files import as_float, newest_results

    path = newest_results(output) if output.exists() else run(model, output, metadata=metadata, **SETTINGS)
    content = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {
        f"{task}/{name.removesuffix(',none')}": as_float(value)
        for task, values in content.items()
        for name, value in values.items()
        if name.endswith(",none")
    }


def note(sweep: Path) -> list[str]:
    """When, where and with what; the time is that of the runs, which may have been made in several calls."""
    seconds = sum(json.loads(path.read_text())["seconds"] for path in sweep.glob("runs/*/run.json"))
    return [f"{beside.today_here()}; {seconds / WORKERS / 60:.0f} minutes for the runs."]


def arms_table(metrics: dict[str, dict[str, float]]) -> list[str]:
    """Full, retain and selected side by side."""
    rows = {
        "forget quality": "tofu_forget_quality/forget_quality",
        "D": "tofu_forget_quality/ks_statistic",
        "truth ratio, forget rows": "tofu_forget_quality/truth_ratio",
        "ROUGE-L recall, forget rows": "tofu_forget_quality/rougeL_recall",
        "empty answers, forget rows": "tofu_forget_quality/generations_empty",
        "ROUGE-L recall, retain rows": "tofu_model_utility/retain_rougeL_recall",
        "model utility": "tofu_model_utility/model_utility",
    }
    arms = ("full", "retain", "selected")
    lines = ["| | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
    for label, key in rows.items():
        cells = (metrics[arm][key] for arm in arms)
        lines.append(f"| {label} | " + " | ".join("" if cell != cell else f"{cell:.3g}" for cell in cells) + " |")
    return lines


def runs_table(selection: dict[str, Any]) -> list[str]:
    """All runs by rank."""
    options = list(selection["runs"][0]["point"])
    lines = ["| rank | " + " | ".join(options) + " | forget quality | D | p, D as the first's | model utility |"]
    lines.append("|" + "---|" * (len(options) + 5))
    for run in selection["runs"]:
        p_value = "" if run["p_value"] is None else f"{run['p_value']:.3f}"
        point = " | ".join(f"{value:g}" for value in run["point"].values())
        lines.append(
            f"| {run['rank']} | {point} | {run['forget_quality']:.3g} | {run['ks_statistic']:.3f} | {p_value} | "
            f"{run['model_utility']:.3f} |"
        )
    return lines


def equals_note(selection: dict[str, Any]) -> list[str]:
    """What the paired test says of the other runs."""
    ranks = {run["run"]: run["rank"] for run in selection["runs"]}
    equals = ", ".join(str(ranks[name]) for name in selection["equals"]) or "none"
    return [f"Not told from the first by a paired test (exchanging {selection['exchanged']}): ranks {equals}."]


if __name__ == "__main__":
    sys.exit(main())
