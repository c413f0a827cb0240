"""Cost of one pass of the three benchmark tasks: tokens and seconds by step, on hf and on vLLM.

    python benchmarks/eval_cost.py [--model DIR] [--tofu mini] [--forget-split forget10] [--backends hf vllm]

Each backend runs in a process of its own, one after the other, in one call. Without `--model` a nano model is written
from scratch first (its weights do not matter for the cost). Writes `benchmarks/eval_cost.json` and the table in
`docs/cost.md`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from parity import ROOT, show

from lm_eval_tofu import files

ARGUMENTS = {
    "hf": {"dtype": "float32"},
    "vllm": {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024},
}


def child(backend: str, model: str, metadata: dict[str, Any], output: Path) -> None:
    """Evaluate once in this process and write down the seconds of each part."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0) + time.perf_counter() - start

    start = time.perf_counter()
    with timed("imports"):
        from lm_eval import evaluate
        from lm_eval.api.registry import get_model
        from lm_eval.tasks import TaskManager

    from lm_eval_tofu.tasks import TASKS_DIR

    arguments = {"pretrained": model, **ARGUMENTS[backend]}
    extra = {"device": "cpu", "batch_size": 32} if backend == "hf" else {"batch_size": "auto"}
    with timed("tasks and data"):
        manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata={**arguments, **metadata})
        tasks = manager.load(["tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob"])
    with timed("loading the model"):
        lm = get_model(backend)(**arguments, **extra)
    tokens = {"prompts of log-likelihoods": 0, "answers of log-likelihoods": 0, "prompts of generations": 0}
    tokens["generated"] = 0
    encode = lm.tokenizer.encode
    for name in ("loglikelihood", "generate_until"):
        method = getattr(lm, name)

        def wrapped(requests: list[Any], name: str = name, method: Any = method) -> Any:
            label = "log-likelihoods" if name == "loglikelihood" else "generations"
            with timed(label):
                answers = method(requests)
            for request, answer in zip(requests, answers, strict=True):
                prompt, rest = request.args
                tokens[f"prompts of {label}"] += len(encode(str(prompt)))
                if name == "loglikelihood":
                    tokens["answers of log-likelihoods"] += len(encode(rest))
                else:
                    tokens["generated"] += len(encode(answer))
            return answers

        setattr(lm, name, wrapped)
    with timed("evaluate, all"):
        results = evaluate(lm, tasks, bootstrap_iters=0, apply_chat_template=True)
    total = time.perf_counter() - start
    seconds["requests, metrics"] = seconds.pop("evaluate, all") - seconds["log-likelihoods"] - seconds["generations"]
    requests = {name: len(samples) for name, samples in results["samples"].items()}
    report = {"seconds": seconds, "total seconds": total, "tokens": tokens, "documents": requests}
    output.write_text(json.dumps(report), encoding="utf-8")


def table(reports: dict[str, dict[str, Any]]) -> str:
    """The Markdown table for the documentation."""
    names = list(reports)
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for part in next(iter(reports.values()))["seconds"]:
        lines.append(f"| {part}, s | " + " | ".join(f"{reports[n]['seconds'][part]:.1f}" for n in names) + " |")
    lines.append("| all, s | " + " | ".join(f"{reports[n]['total seconds']:.1f}" for n in names) + " |")
    for part in next(iter(reports.values()))["tokens"]:
        lines.append(f"| tokens, {part} | " + " | ".join(f"{reports[n]['tokens'][part]:,}" for n in names) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run every backend in a child process and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tofu", default="mini")
    parser.add_argument("--forget-split", default="forget10")
    parser.add_argument("--backends", nargs="+", choices=ARGUMENTS, default=list(ARGUMENTS))
    parser.add_argument("--child", nargs=2, metavar=("BACKEND", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    metadata = {"tofu": arguments.tofu, "forget_split": arguments.forget_split}
    if arguments.child:
        child(arguments.child[0], str(arguments.model), metadata, Path(arguments.child[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if model is None:
            from lm_eval_tofu import tofu
            from lm_eval_tofu.unlearn import nano

            model, sizes = Path(folder) / "nano", nano.preset()
            tokenizer = nano.build_tokenizer(nano.corpus(tofu.resolve_source(arguments.tofu)), sizes)
            tokenizer.save_pretrained(model)
            nano.build_model(tokenizer, sizes, seed=0).save_pretrained(model)
        reports = {}
        for backend in arguments.backends:
            output = Path(folder) / f"{backend}.json"
            command = [sys.executable, __file__, "--child", backend, str(output), "--model", str(model)]
            command += ["--tofu", arguments.tofu, "--forget-split", arguments.forget_split]
            environment = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}
            subprocess.run(command, check=True, env=environment)
            reports[backend] = json.loads(output.read_text(encoding="utf-8"))
    name = arguments.model.name if arguments.model else "nano (untrained)"
    packages = ", ".join(f"{package} {version(package)}" for package in ("lm-eval", "transformers", "torch", "vllm"))
    note = (
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {packages}, float32; "
        f"model {name}, data {arguments.tofu}, {arguments.forget_split}."
    )
    report = {"date and machine": note, "backends": reports}
    files.write_text(ROOT / "benchmarks" / "eval_cost.json", json.dumps(report, indent=2) + "\n")
    show("cost", f"{note}\n\n{table(reports)}")
    print(table(reports))


if __name__ == "__main__":
    main()
