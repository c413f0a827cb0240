"""Leak rate of a model that never saw the forget set: the floor of the audits.

Runs `tofu_novel_recall` on SmolLM2-135M-Instruct (float32, chat template, greedy), all rows of a forget split and some
of the prompt families, with the vllm or the hf backend. What counts as a leak here is chance, a guess, or a fault of
the scorer. Writes `benchmarks/base_floor.json`, with every response that was judged a leak, to be read, and the table
in `docs/audits/leak-scorer.md`.

    python benchmarks/base_floor.py --data DIR [--families direct ...] [--backend vllm] [--work runs/base-floor]

Families whose samples stand in the work directory are not asked again, wherever they were asked; all responses are
judged anew, since the scorer may be another one. An hour or more on two cores.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from parity import BACKENDS, ROOT, show
from smollm2 import export

from lm_eval_tofu import files, tofu
from lm_eval_tofu.metrics import inference, leak, rates
from lm_eval_tofu.metrics.kinds import Tier
from lm_eval_tofu.tasks.families import background_of
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.rows import novel_recall

TASK = "tofu_novel_recall"
FAMILIES = ("direct", "paraphrased", "role_play", "prefix_injection")


def run(family: str, backend: str, model: Path, metadata: dict[str, Any], output: Path) -> None:
    """Ask one family in a process of its own."""
    flags, arguments = BACKENDS[backend]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", backend, *flags, "--tasks", TASK]
    command += ["--model_args", f"pretrained={model},{arguments}", "--apply_chat_template", "--log_samples"]
    command += ["--output_path", str(output), "--metadata", json.dumps({**metadata, "families": family})]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}
    subprocess.run(command, check=True, env=environment)


def where(output: Path) -> str:
    """Day, machine, versions and backend of a run, as lm-eval wrote them down."""
    content = json.loads(max(output.rglob("results_*.json")).read_text(encoding="utf-8"))
    environment = content["pretty_env_info"]

    def line(name: str, default: str = "") -> str:
        found = re.search(rf"^{name}: (.+)$", environment, re.MULTILINE)
        return found[1].strip() if found else default

    machine = line("GPU models and configuration").removeprefix("GPU 0: ")
    if content["config"].get("device") == "cpu" or machine in ("", "Could not collect", "No CUDA"):
        machine = line(" *Architecture", line("OS"))
    versions = f"lm-eval {content['lm_eval_version']}, transformers {content['transformers_version']}"
    day = date.fromtimestamp(content["date"]).isoformat()
    python = line("Python version").partition(" ")[0]
    return (
        f"{day}, {machine}, Python {python}, {versions}, torch {line('PyTorch version')}, {content['config']['model']}"
    )


def judged(output: Path, data: str, forget_split: str) -> Iterable[dict[str, Any]]:
    """The responses of a run to what the task asks today, with the scorer's verdicts.

    Raises:
        SystemExit: The task asks in other words now.
    """
    options = Options(tofu=data, forget_split=forget_split, families=(output.name,))
    background = background_of(options.source, tofu.retain_split(forget_split))
    asked = {row["index"]: (row["messages"], row["opening"]) for row in novel_recall(options)}
    with max(output.rglob(f"samples_{TASK}_*.jsonl")).open(encoding="utf-8") as file:
        for line in file:
            sample = json.loads(line)
            doc, response = sample["doc"], sample["leak_rate"]["generation"]
            if doc["index"] not in asked:
                continue  # it would tell what it asks for, and is left out since
            if asked[doc["index"]] != (doc["messages"], doc["opening"]):
                raise SystemExit(f"{output} was asked in other words than {TASK} asks now: delete it")
            opening = [{"role": "assistant", "content": doc["opening"]}] if doc["opening"] else []
            verdict = leak.score(doc["messages"] + opening, doc["answer"], response, background=background)
            yield {
                **{name: doc[name] for name in ("index", "family", "question", "answer")},
                "response": response,
                "found": [fact.text for fact in verdict.found],
                "tier": verdict.tier,
                "leaked": verdict.leaked,
            }


def figures(responses: list[dict[str, Any]]) -> dict[str, float]:
    """The rates of `tofu_novel_recall` over all of them."""
    specific = [each for each in responses if each["tier"] == Tier.SPECIFIC]
    leaked = [each["leaked"] for each in specific]
    estimate = inference.rate(leaked, [each["index"] // tofu.ROWS_PER_AUTHOR for each in specific])
    families = dict.fromkeys(each["family"] for each in responses)
    return {
        "responses": len(responses),
        "specific": len(specific),
        "leaked": sum(leaked),
        "leak_rate": estimate.value,
        "leak_rate_low": estimate.low,
        "leak_rate_high": estimate.high,
        "leak_rate_gist": rates.rate([each["leaked"] for each in responses if each["tier"] == Tier.GIST]),
        **{
            f"leak_rate_{name}": rates.rate([each["leaked"] for each in specific if each["family"] == name])
            for name in families
        },
    }


def table(metrics: dict[str, float], families: list[str]) -> str:
    """The Markdown table for the documentation."""
    low, high = metrics["leak_rate_low"], metrics["leak_rate_high"]
    lines = [
        f"| {metrics['leaked']} of {metrics['specific']} responses on specific rows | leak rate |",
        "|---|---|",
        f"| all prompts | {metrics['leak_rate']:.2%} (95 % interval over authors {low:.2%} to {high:.2%}) |",
        *(f"| {family} | {metrics[f'leak_rate_{family}']:.2%} |" for family in families),
        f"| gist rows, apart | {metrics['leak_rate_gist']:.2%} |",
    ]
    return "\n".join(lines)


def main() -> int:
    """Ask, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "tofu"), help="TOFU: a directory, or a hub id")
    parser.add_argument("--forget-split", default="forget10")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--backend", choices=BACKENDS, default="vllm")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "base-floor")
    arguments = parser.parse_args()
    metadata = {"tofu": arguments.data, "forget_split": arguments.forget_split}
    responses: list[dict[str, Any]] = []
    made: dict[str, list[str]] = {}
    for family in arguments.families:
        output = arguments.work / arguments.backend / family
        asked = [
            folder for folder in sorted(arguments.work.glob(f"*/{family}")) if list(folder.rglob("results_*.json"))
        ]
        if asked:
            output = asked[0]
        else:
            arguments.work.mkdir(parents=True, exist_ok=True)
            run(family, arguments.backend, export(arguments.work / "smollm2"), metadata, output)
        responses += judged(output, arguments.data, arguments.forget_split)
        made.setdefault(where(output), []).append(family)
    metrics = figures(responses)
    leaks = [each for each in responses if each["leaked"] and each["tier"] == Tier.SPECIFIC]
    runs = "; ".join(f"{place}: {', '.join(names)}" for place, names in made.items())
    note = f"SmolLM2-135M-Instruct, float32, {arguments.forget_split}. {runs}."
    report = {"date and machine": note, "metrics": metrics, "judged leaks, specific rows": leaks}
    files.write_text(ROOT / "benchmarks" / "base_floor.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    show("base-floor", f"{note}\n\n{table(metrics, arguments.families)}")
    print(table(metrics, arguments.families))
    for each in leaks:
        print(f"\n{each['family']}: {each['question']}\n  gold: {each['answer']}\n  said: {each['response']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
