"""Compares our tasks with the benchmark's own evaluation code, row by row.

Runs `lm_eval` on SmolLM2-135M-Instruct (float32, chat template), forget01 and the three utility sets,
with the hf and the vllm backend, and holds every loss, every ROUGE-L recall and every aggregate against what
open-unlearning computed of the same model (`tests/reference/open_unlearning.json`). Prints the comparison and ends with
status 1 where something is out of tolerance; with `--write` it also writes `benchmarks/parity.json` and the table in
`docs/parity.md`.

    python benchmarks/parity.py [--data DIR] [--backends hf vllm] [--tasks ...] [--work runs/parity] [--write]
    python benchmarks/parity.py --memorisation [--speed] [--figures DIR] ...     (see benchmarks/memorization.py)

Results that stand in the work directory are not made again. An hour a backend on two cores; `--tasks
tofu_forget_quality` alone takes some minutes.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import memorization
import torch
from smollm2 import export

from lm_eval_tofu import files, tofu
from lm_eval_tofu.metrics.benchmark import model_utility

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "tests" / "reference" / "open_unlearning.json"
LOSS_TOLERANCE, AGGREGATE_TOLERANCE, ROUGE_TOLERANCE = 1e-3, 1e-3, 0.01
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = {
    "hf": (["--device", DEVICE, "--batch_size", "32"], "dtype=float32"),
    "vllm": (["--batch_size", "auto"], "dtype=float32,enforce_eager=True,max_model_len=1024"),
}
TASKS = {"tofu_forget_quality": "forget_quality", "tofu_model_utility": "model_utility"}
# Our set of rows and answer column for each of the log's metrics that holds losses.
LOSSES = {
    ("forget", "answer"): "forget_Q_A_Prob",
    ("forget", "paraphrased_answer"): "forget_Q_A_PARA_Prob",
    ("forget", "perturbed_answer"): "forget_Q_A_PERT_Prob",
    ("retain", "answer"): "retain_Q_A_Prob",
    ("retain", "paraphrased_answer"): "retain_Q_A_PARA_Prob",
    ("retain", "perturbed_answer"): "retain_Q_A_PERT_Prob",
    ("real_authors", "answer"): "ra_Q_A_Prob",
    ("real_authors", "perturbed_answer"): "ra_Q_A_PERT_Prob",
    ("world_facts", "answer"): "wf_Q_A_Prob",
    ("world_facts", "perturbed_answer"): "wf_Q_A_PERT_Prob",
}
ROUGE = {
    "forget": "forget_Q_A_ROUGE",
    "retain": "retain_Q_A_ROUGE",
    "real_authors": "ra_Q_A_ROUGE",
    "world_facts": "wf_Q_A_ROUGE",
}
AGGREGATES = {
    ("tofu_forget_quality", "probability"): "forget_Q_A_Prob",
    ("tofu_forget_quality", "truth_ratio"): "forget_truth_ratio",
    ("tofu_model_utility", "retain_probability"): "retain_Q_A_Prob",
    ("tofu_model_utility", "retain_truth_ratio"): "retain_Truth_Ratio",
    ("tofu_model_utility", "real_authors_probability"): "ra_Q_A_Prob_normalised",
    ("tofu_model_utility", "real_authors_truth_ratio"): "ra_Truth_Ratio",
    ("tofu_model_utility", "world_facts_probability"): "wf_Q_A_Prob_normalised",
    ("tofu_model_utility", "world_facts_truth_ratio"): "wf_Truth_Ratio",
    ("tofu_model_utility", "model_utility"): "model_utility",
    ("tofu_forget_quality", "rougeL_recall"): "forget_Q_A_ROUGE",
    ("tofu_model_utility", "retain_rougeL_recall"): "retain_Q_A_ROUGE",
    ("tofu_model_utility", "real_authors_rougeL_recall"): "ra_Q_A_ROUGE",
    ("tofu_model_utility", "world_facts_rougeL_recall"): "wf_Q_A_ROUGE",
}


class Rows(NamedTuple):
    """One backend's results: records by set and index, and the results JSON's metrics."""

    records: dict[tuple[str, int], dict[str, Any]]
    metrics: dict[str, dict[str, float]]


def run(task: str, backend: str, model: Path, data: str, work: Path) -> None:
    """Evaluate the model on one task with one backend, in a process of its own.

    Finished results are kept, and what a killed run had scored is read from its cache (one a backend).
    """
    output = work / backend / task
    if list(output.rglob("results_*.json")):
        return
    output.mkdir(parents=True, exist_ok=True)
    flags, arguments = BACKENDS[backend]
    metadata = {"tofu": data, "forget_split": "forget01"}
    command = [sys.executable, "-m", "lm_eval", "run", "--model", backend, *flags, "--tasks", task]
    command += ["--model_args", f"pretrained={model},{arguments}", "--apply_chat_template", "--log_samples"]
    command += ["--output_path", str(output), "--metadata", json.dumps(metadata)]
    command += ["--use_cache", str(work / backend / "cache")]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}
    subprocess.run(command, check=True, env=environment)


def read(output: Path, tasks: list[str]) -> Rows:
    """Read a backend's results, one directory a task."""
    records, metrics = {}, {}
    for task in tasks:
        key = TASKS[task]
        results = json.loads(max((output / task).rglob("results_*.json")).read_text(encoding="utf-8"))["results"][task]
        metrics[task] = {key.removesuffix(",none"): value for key, value in results.items()}
        with max((output / task).rglob(f"samples_{task}_*.jsonl")).open(encoding="utf-8") as file:
            for line in file:
                sample = json.loads(line)
                record = sample[key]
                record["rougeL_recall"] = record.get("rougeL_recall", sample.get("rougeL_recall"))
                records[record["set"], record["index"]] = record
    return Rows(records, metrics)


def loss_differences(rows: Rows, log: dict[str, Any]) -> Iterator[tuple[float, str]]:
    """Absolute difference of every loss, with a name for its row."""
    for (name, column), metric in LOSSES.items():
        if (name, 0) not in rows.records:
            continue
        for index, theirs in enumerate(log[metric]["avg_loss"]):
            ours = rows.records[name, index]["losses"][column]
            for mine, other in zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]:
                yield abs(mine - other), f"{name} row {index}, {column}"


def compare(rows: Rows, log: dict[str, Any]) -> dict[str, Any]:
    """All differences of one run from the figures of one log."""
    differences = list(loss_differences(rows, log))
    worst, where = max(differences, key=lambda each: (math.isnan(each[0]), each[0]))
    generations = []
    for name, metric in ROUGE.items():
        if (name, 0) not in rows.records:
            continue
        for index, theirs in enumerate(log[metric]["rougeL_recall"]):
            ours = rows.records[name, index]
            if not abs(ours["rougeL_recall"] - theirs) <= 1e-8:  # the figures are kept to nine digits
                generations.append(
                    {
                        "row": f"{name} row {index}",
                        "ours": ours["rougeL_recall"],
                        "log": theirs,
                        "our generation": ours["generation"],
                    }
                )
    aggregates = {}
    for (task, metric), theirs in AGGREGATES.items():
        if task not in rows.metrics:
            continue
        ours, other = rows.metrics[task][metric], log[theirs]["agg_value"]
        aggregates[theirs] = {"metric": metric, "ours": ours, "log": other, "relative": abs(ours - other) / abs(other)}
    return {
        "losses": len(differences),
        "worst loss difference": worst,
        "worst loss at": where,
        "aggregates": aggregates,
        "generations with another ROUGE-L recall": generations,
    }


def said(result: dict[str, Any]) -> str:
    """What was compared and how closely, for the terminal."""
    lines = [
        f"{result['losses']} losses: the worst differs by {result['worst loss difference']:.1e} nats/token "
        f"(allowed: {LOSS_TOLERANCE}), at {result['worst loss at']}",
        f"generations with another ROUGE-L recall: {len(result['generations with another ROUGE-L recall'])}",
    ]
    for name, row in result["aggregates"].items():
        lines.append(
            f"{name}: {row['log']:.6f} there, {row['ours']:.6f} here, relative difference {row['relative']:.1e}"
        )
    return "\n".join(lines)


def failures(result: dict[str, Any]) -> list[str]:
    """What of a comparison is out of tolerance."""
    found = []
    if not result["worst loss difference"] <= LOSS_TOLERANCE:  # NaN is no agreement
        found.append(f"loss of {result['worst loss at']}: {result['worst loss difference']:.2e}")
    for name, row in result["aggregates"].items():
        if name.endswith("ROUGE"):
            if not abs(row["ours"] - row["log"]) <= ROUGE_TOLERANCE:
                found.append(f"{name}: {row['ours']} against {row['log']}")
        elif name != "model_utility" and not row["relative"] <= AGGREGATE_TOLERANCE:
            found.append(f"{name}: {row['ours']} against {row['log']}")
    # Utility holds ROUGE too, whose rows may differ: with the log's ROUGE it must agree to the aggregates' tolerance.
    part = result["aggregates"]
    if "model_utility" not in part:
        return found
    mixed = [
        part[name]["log" if name.endswith("ROUGE") else "ours"]
        for name in AGGREGATES.values()
        if not name.startswith(("forget", "model"))
    ]
    if not abs(model_utility(mixed) / part["model_utility"]["log"] - 1) <= AGGREGATE_TOLERANCE:
        found.append(f"model_utility with the log's ROUGE: {model_utility(mixed)}")
    return found


def table(results: dict[str, dict[str, Any]], published: dict[str, Any]) -> str:
    """The Markdown table for the documentation."""
    backends = list(results)
    lines = [
        "| metric of open-unlearning | its code | "
        + " | ".join(f"ours, {name}" for name in backends)
        + " | its code as published |",
        "|---|---|" + "---|" * (len(backends) + 1),
    ]
    for name in AGGREGATES.values():
        if name not in results[backends[0]]["aggregates"]:
            continue
        cells = [f"{results[backend]['aggregates'][name]['ours']:.6f}" for backend in backends]
        log = results[backends[0]]["aggregates"][name]["log"]
        lines.append(f"| {name} | {log:.6f} | " + " | ".join(cells) + f" | {published[name]['agg_value']:.6f} |")
    worst = [f"{results[backend]['worst loss difference']:.1e}" for backend in backends]
    lines.append(f"| worst of {results[backends[0]]['losses']} losses |  | " + " | ".join(worst) + " |  |")
    other = [str(len(results[backend]["generations with another ROUGE-L recall"])) for backend in backends]
    lines.append("| rows with another ROUGE-L recall |  | " + " | ".join(other) + " |  |")
    return "\n".join(lines)


def show(marker: str, text: str) -> None:
    """Replace what a page of `docs/` has between two comments, `MARKER:begin` and `MARKER:end`.

    Raises:
        SystemExit: No page has them.
    """
    for page in sorted((ROOT / "docs").rglob("*.md")):
        before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {marker}:begin -->\n")
        _, end, after = rest.partition(f"<!-- {marker}:end -->")
        if begin and end:
            files.write_text(page, f"{before}{begin}\n{text}\n\n{end}{after}")
            return
    raise SystemExit(f"no page of {ROOT / 'docs'} has the comments {marker}:begin and {marker}:end")


def main() -> int:
    """Run, compare, print; exit code 1 where something is out of tolerance.

    Raises:
        DataError: TOFU cannot be read, which is found out before a model runs.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="TOFU: a directory or a hub id (default: $LM_EVAL_TOFU_DATA, else the hub)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "parity")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="the utility sets take longest")
    parser.add_argument("--write", action="store_true", help="write benchmarks/parity.json and docs/parity.md")
    parser.add_argument("--memorisation", action="store_true", help="compare memorisation, membership and UDS instead")
    parser.add_argument("--figures", type=Path, default=memorization.FIGURES, help="their figures and nano models")
    parser.add_argument("--speed", action="store_true", help="with --memorisation: time a pass instead")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="with --speed: every Nth row only")
    arguments = parser.parse_args()
    data = tofu.resolve_source(arguments.data)
    tofu.load("forget01_perturbed", data)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.memorisation:
        return memorization.main(arguments)
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    log, published = figures["fixed"], figures["as_published"]
    model = export(arguments.work / "smollm2")
    for task in arguments.tasks:
        for backend in arguments.backends:
            run(task, backend, model, data.location, arguments.work)
    results = {backend: compare(read(arguments.work / backend, arguments.tasks), log) for backend in arguments.backends}
    problems = [f"{backend}: {problem}" for backend, result in results.items() for problem in failures(result)]
    for backend, result in results.items():
        print(f"{backend}, {', '.join(arguments.tasks)}:\n{said(result)}\n")
    print("\n".join(problems) or "everything within tolerance")
    if arguments.write:
        document(arguments, results, published)
    return 1 if problems else 0


def document(arguments: argparse.Namespace, results: dict[str, dict[str, Any]], published: dict[str, Any]) -> None:
    """Write `benchmarks/parity.json` and the table in `docs/parity.md`."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    packages = ("lm-eval", "transformers", "torch", "vllm")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    note = f"{date.today().isoformat()}, {machine}, Python {platform.python_version()}, {versions}, float32; "
    note += f"compared: {', '.join(arguments.tasks)}."
    report = {"date and machine": note, "results": results}
    files.write_text(ROOT / "benchmarks" / "parity.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    show("parity", f"{note}\n\n{table(results, published)}")


if __name__ == "__main__":
    raise SystemExit(main())
