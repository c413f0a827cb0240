"""Prompts per second of four leak audits: on hf, and on vLLM with and without prefix caching.

    python benchmarks/audit_throughput.py [--model DIR] [--tofu mini] [--tokens 32] [--samples 8]

Without `--model` it is SmolLM2-135M-Instruct (float32, chat template). Each form runs in a process of its own, one
after the other, in one call, and answers the same prompts; answers are cut at `--tokens`, so that every form generates
about as much. Loading, building prompts and judging answers are not counted: they are the same everywhere. Best-of-N
is asked with N samples and with one, which shows what N samples cost. Writes `benchmarks/audit_throughput.json` and
the table in `docs/cost.md`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from parity import ROOT, show
from smollm2 import export

from lm_eval_tofu import files

VLLM = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "hf": ("hf", {"dtype": "float32"}),
    "vLLM": ("vllm", {**VLLM, "enable_prefix_caching": False}),
    "vLLM, prefix caching": ("vllm", {**VLLM, "enable_prefix_caching": True}),
}
FAMILIES, FORMATS = "direct,in_context", "json,letter"
"""A short and a long family, a short and a long format: all twenty would take hours on a small machine."""


def runs(samples: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is timed: the row's name, the task, its options."""
    return {
        "novel recall": ("tofu_novel_recall", {"families": FAMILIES}),
        "format shift": ("tofu_format_shift", {"formats": FORMATS}),
        "chain of clues": ("tofu_chain_of_clues", {}),
        "best of 1": ("tofu_best_of_n", {"best_of_n": 1}),
        f"best of {samples}": ("tofu_best_of_n", {"best_of_n": samples}),
    }


def child(form: str, args: argparse.Namespace) -> None:
    """Time every run on one backend, in this process."""
    from lm_eval import evaluate
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager

    from lm_eval_tofu.tasks import TASKS_DIR

    backend, model_args = FORMS[form]
    arguments = {"pretrained": str(args.model), **model_args}
    extra = {"device": "cpu", "batch_size": 32} if backend == "hf" else {"batch_size": "auto"}
    lm = get_model(backend)(**arguments, **extra)
    ask = lm.generate_until
    timed: dict[str, float] = {}

    def generate_until(requests: list[Any]) -> list[str]:
        start = time.perf_counter()
        answers: list[str] = ask(requests)
        timed["seconds"] = time.perf_counter() - start
        timed["prompts"] = len(requests)
        timed["prompt tokens"] = sum(len(lm.tokenizer.encode(str(request.args[0]))) for request in requests)
        timed["generated tokens"] = sum(len(lm.tokenizer.encode(answer)) for answer in answers)
        return answers

    lm.generate_until = generate_until
    report = {}
    for name, (task, options) in runs(args.samples).items():
        metadata = {**arguments, "tofu": args.tofu, "forget_split": args.forget_split, **options}
        manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
        tasks = manager.load([task])
        for loaded in tasks["tasks"].values():
            loaded.set_config("generation_kwargs", {"max_gen_toks": args.tokens}, update=True)
        evaluate(lm, tasks, bootstrap_iters=0, apply_chat_template=True)
        report[name] = {**timed, "prompts a second": timed["prompts"] / timed["seconds"]}
    files.write_text(args.output, json.dumps(report))
    # vLLM's threads may abort the interpreter's shutdown, which would look like a failed run: the engine ends first.
    if backend == "vllm":
        lm.model.llm_engine.engine_core.shutdown()
    sys.stdout.flush()
    os._exit(0)


def table(reports: dict[str, dict[str, Any]], samples: int) -> str:
    """The Markdown table for the documentation."""
    forms = list(reports)
    lines = ["| prompts a second | prompts | " + " | ".join(forms) + " |", "|---|---|" + "---|" * len(forms)]
    for name in runs(samples):
        cells = " | ".join(f"{reports[form][name]['prompts a second']:.2f}" for form in forms)
        lines.append(f"| {name} | {reports[forms[0]][name]['prompts']} | {cells} |")
    ratios = " | ".join(f"{ratio:.2f}" for ratio in (cost(reports[form], samples) for form in forms))
    lines.append(f"| time of best of {samples} over that of best of 1 | | {ratios} |")
    return "\n".join(lines)


def cost(report: dict[str, Any], samples: int) -> float:
    """How many times the time of one sample a row N samples take."""
    return float(report[f"best of {samples}"]["seconds"] / report["best of 1"]["seconds"])


def main() -> int:
    """Run every form in a child process and write the figures; exit code 1 where N samples cost N times one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tofu", default="mini")
    parser.add_argument("--forget-split", default="forget05")
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    parser.add_argument("--samples", type=int, default=8, help="N of best-of-N")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--child", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args)
    name = args.model.name if args.model else "SmolLM2-135M-Instruct"
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or export(Path(folder) / "smollm2")
        reports = {}
        for number, form in enumerate(args.forms):
            output = Path(folder) / f"{number}.json"
            command = [sys.executable, __file__, "--child", form, "--output", str(output), "--model", str(model)]
            command += ["--tofu", args.tofu, "--forget-split", args.forget_split]
            command += ["--tokens", str(args.tokens), "--samples", str(args.samples)]
            environment = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}
            subprocess.run(command, check=True, env=environment)
            reports[form] = json.loads(output.read_text(encoding="utf-8"))
    packages = ", ".join(f"{package} {version(package)}" for package in ("lm-eval", "transformers", "torch", "vllm"))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    note = (
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, threads: {threads}, "
        f"Python {platform.python_version()}, {packages}, float32; model {name}, data {args.tofu}, "
        f"{args.forget_split}, answers of at most {args.tokens} tokens; families {FAMILIES}, formats {FORMATS}."
    )
    report = {"date and machine": note, "samples": args.samples, "forms": reports}
    files.write_text(ROOT / "benchmarks" / "audit_throughput.json", json.dumps(report, indent=2) + "\n")
    show("throughput", f"{note}\n\n{table(reports, args.samples)}")
    print(table(reports, args.samples))
    dear = [form for form in reports if cost(reports[form], args.samples) >= args.samples]
    print("\n".join(f"{form}: N samples cost N times one" for form in dear) or "N samples cost less than N times one")
    return 1 if dear else 0


if __name__ == "__main__":
    raise SystemExit(main())
