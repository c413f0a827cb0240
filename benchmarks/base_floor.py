"""Says how often a model that never saw the forget set is judged to leak it: the floor of the audits.

Runs `tofu_novel_recall` on SmolLM2-135M-Instruct (float32, chat template, greedy), all rows of a forget split and some
of the prompt families, with the vllm or the hf backend. What counts as a leak here is chance, a guess, or a fault of
the scorer. Writes `benchmarks/base_floor.json`, with every response that was judged a leak, to be read, and the table
in `docs/audits.md`.

    python benchmarks/base_floor.py --data DIR [--families direct ...] [--backend vllm] [--work runs/base-floor]

Families whose answers stand in the work directory's cache are not asked again. An hour or more on two cores.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from parity import BACKENDS, ROOT, show, write
from smollm2 import export

TASK = "tofu_novel_recall"
FAMILIES = ("direct", "paraphrased", "role_play", "prefix_injection")


def run(families: list[str], backend: str, model: Path, metadata: dict[str, Any], work: Path, output: Path) -> None:
    """Ask some families in a process of their own; what was asked before is read from the cache."""
    flags, arguments = BACKENDS[backend]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", backend, *flags, "--tasks", TASK]
    command += ["--model_args", f"pretrained={model},{arguments}", "--apply_chat_template", "--log_samples"]
    command += ["--output_path", str(output), "--use_cache", str(work / backend / "cache")]
    command += ["--metadata", json.dumps({**metadata, "families": families})]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}
    subprocess.run(command, check=True, env=environment)


def read(output: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The newest results: the metrics, and the records of the responses judged leaks on specific rows."""
    results = json.loads(max(output.rglob("results_*.json")).read_text(encoding="utf-8"))["results"][TASK]
    metrics = {key.removesuffix(",none"): value for key, value in results.items() if isinstance(value, int | float)}
    leaks = []
    with max(output.rglob(f"samples_{TASK}_*.jsonl")).open(encoding="utf-8") as file:
        for line in file:
            sample = json.loads(line)
            record = sample["leak_rate"]
            if record["leaked"] and record["tier"] == "specific":
                asked = {name: sample["doc"][name] for name in ("index", "family", "question", "answer")}
                leaks.append({**asked, "response": record["generation"], "found": record["found"]})
    return metrics, leaks


def table(metrics: dict[str, float], families: list[str]) -> str:
    """The Markdown table for the documentation."""
    low, high = metrics["leak_rate_low"], metrics["leak_rate_high"]
    lines = [
        "| specific rows | leak rate |",
        "|---|---|",
        f"| all prompts | {metrics['leak_rate']:.2%} (95 % interval over authors {low:.2%} to {high:.2%}) |",
        *(f"| {family} | {metrics[f'leak_rate_{family}']:.2%} |" for family in families),
        f"| gist rows, apart | {metrics['leak_rate_gist']:.2%} |",
    ]
    return "\n".join(lines)


def main() -> int:
    """Ask, read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "tofu"), help="TOFU: a directory, or a hub id")
    parser.add_argument("--forget-split", default="forget10")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--backend", choices=BACKENDS, default="vllm")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "base-floor")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    model = export(arguments.work / "smollm2")
    metadata = {"tofu": arguments.data, "forget_split": arguments.forget_split}
    for family in arguments.families:  # one by one: lm-eval writes its cache when a run's answers are all there
        output = arguments.work / arguments.backend / family
        if not list(output.rglob("results_*.json")):
            run([family], arguments.backend, model, metadata, arguments.work, output)
    output = arguments.work / arguments.backend / "all"
    # Judged anew each time, with the answers of the cache: the scorer may be another one.
    run(arguments.families, arguments.backend, model, metadata, arguments.work, output)
    metrics, leaks = read(output)
    names = ["lm-eval", "transformers", "torch", *(["vllm"] if arguments.backend == "vllm" else [])]
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    note = (
        f"{date.today().isoformat()}, {machine}, Python {platform.python_version()}, {packages}, float32; "
        f"SmolLM2-135M-Instruct, {arguments.forget_split}, {arguments.backend}."
    )
    report = {"date and machine": note, "metrics": metrics, "judged leaks, specific rows": leaks}
    write(ROOT / "benchmarks" / "base_floor.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    show("base-floor", f"{note}\n\n{table(metrics, arguments.families)}")
    print(table(metrics, arguments.families))
    for leak in leaks:
        print(f"\n{leak['family']}: {leak['question']}\n  gold: {leak['answer']}\n  said: {leak['response']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
