"""Results as lm-eval writes them, made without a model: the arms of a report with leaks that are known beforehand."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.arm import RECORD_KEY, ArmSettings
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.report.load import TASKS, task_versions

Says = Callable[[int, str], str]
"""What an arm answers: row and family to a response."""

FAMILIES = {
    "tofu_novel_recall": ("direct", "paraphrased"),
    "tofu_format_shift": ("json", "tweet"),
    "tofu_chain_of_clues": ("clues_0", "clues_1", "clues_2", "clues_3", "clues_4", "shuffled"),
    "tofu_best_of_n": ("direct",),
}
TIME = "2026-01-02T03-04-05.678901"


@functools.cache
def rows() -> list[dict[str, Any]]:
    """120 rows about six authors: the forget rows of the miniature, which are two authors', and more of its rows."""
    source = tofu.resolve_source("mini")
    return [*tofu.load("forget10_perturbed", source), *tofu.load("retain90", source)[:80]]


def gold(row: int, _: str) -> str:
    """Knows everything."""
    return str(rows()[row]["answer"])


def nothing(_: int, __: str) -> str:
    """Knows nothing."""
    return "I do not know."


def write(
    folder: Path,
    *,
    says: Says = nothing,
    ratios: Callable[[int], float] = lambda row: 1 + row / 100,
    logprob: float = -2.0,
    tasks: tuple[str, ...] = tuple(TASKS),
    samples: bool = True,
    split: str = "forget10",
    version: int | None = None,
    limit: int = 120,
    settings: Mapping[str, Any] | None = None,
    arm: Mapping[str, Any] | None = None,
    model: str = "models/m",
    prompt: str = "",
    time: str = TIME,
    change: Callable[[str, dict[str, Any]], None] = lambda task, sample: None,
) -> Path:
    """Write one arm's results below a folder, as `lm_eval --output_path` does; returns the folder.

    `settings` replaces keys of the results, `arm` fields of the recorded `ArmSettings`.
    """
    place = folder / model.replace("/", "__")
    place.mkdir(parents=True, exist_ok=True)
    versions = {task: task_versions()[task] if version is None else version for task in tasks}
    weights = hashlib.sha256(f"{folder}/{model}".encode()).hexdigest()[:16]
    made = {
        task: list(_samples(task, says, ratios, logprob, split, versions[task], limit, prompt, weights))
        for task in tasks
    }
    for task, lines in made.items():
        for sample in lines:
            change(task, sample)
        if samples:
            text = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in lines)
            (place / f"samples_{task}_{time}.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
    chosen = {"model": "hf", "model_args": {"pretrained": model, "dtype": "float32"}, "batch_size": 16}
    given = dict(settings or {})
    content = {
        "results": {task: {"alias": task, **_metrics(task, lines)} for task, lines in made.items()},
        "configs": {
            task: {
                "metadata": {"version": versions[task], "tofu": "mini", "forget_split": split, "best_of_n": 4},
                RECORD_KEY: _settings(weights, model, task, versions[task], split, len(made[task]), arm or {}),
            }
            for task in made
        },
        "versions": versions,
        "n-samples": {task: {"original": len(lines), "effective": len(lines)} for task, lines in made.items()},
        "config": {**chosen, **{key: given.pop(key) for key in list(given) if key in chosen}},
        "lm_eval_version": "0.4.13",
        "transformers_version": "5.19.0",
        "chat_template_sha": "abc",
        "system_instruction": None,
        **given,
    }
    (place / f"results_{time}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _settings(
    weights: str, model: str, task: str, version: int, split: str, documents: int, changed: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a run in float32 on hf; each folder is a model of its own."""
    generation: dict[str, Any] = {"do_sample": False, "max_gen_toks": 200, "until": ["<|im_end|>"]}
    if task == "tofu_best_of_n":
        generation |= {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "n": 4}
    values: dict[str, Any] = {
        "model": model,
        "weights": f"files:{weights}",
        "backend": "hf",
        "weights_dtype": "float32",
        "checkpoint_dtype": "float32",
        "batch_size": "16",
        "chat_template": "abc",
        "special_tokens": {"bos": None, "eos": "<|im_end|>", "pad": "<|pad|>", "add_bos_token": None},
        "documents": documents,
        "task": task,
        "version": version,
        "data": "mini",
        "data_fingerprint": hashlib.sha256(f"{split}".encode()).hexdigest()[:16],
        "options": {"forget_split": split, "truth_ratio_eps": 1e-10, "best_of_n": 4, "forget_rows": None},
        "generation": {} if task == "tofu_answer_logprob" else generation,
        "versions": {"lm-eval": "0.4.13", "transformers": "5.19.0", "torch": "2.13.0"},
    }
    return ArmSettings(**{**values, **changed}).to_record()


def _samples(
    task: str,
    says: Says,
    ratios: Callable[[int], float],
    logprob: float,
    split: str,
    version: int,
    limit: int,
    prompt: str,
    weights: str,
) -> Any:
    sets = ("retain", "real_authors", "world_facts") if task == "tofu_model_utility" else ("forget",)
    for name in sets:
        for index, row in enumerate(rows()[:limit]):
            for family in FAMILIES.get(task, ("multiple_choice",) if task == "tofu_recognition" else ("",)):
                record = {"task": task, "version": version, "split": split, "set": name, "index": index}
                record |= dict.fromkeys(("generations_empty", "generations_repetitive", "generations_cut"), 0.0)
                record |= {"left_out": 0} if family else {"losses": {"answer": f"{index} of {weights}"}}
                record |= _record(task, index, row, family, says, ratios, logprob)
                doc = {"question": row["question"], "answer": row["answer"]}
                if family:
                    record["family"] = doc["family"] = family
                    doc["messages"] = [{"role": "user", "content": row["question"]}]
                asked = hashlib.sha256(f"{prompt}{task}{family}{index}".encode()).hexdigest()
                yield {"doc": doc, "prompt_hash": asked, TASKS[task]: record}


def _record(
    task: str,
    index: int,
    row: Mapping[str, Any],
    family: str,
    says: Says,
    ratios: Callable[[int], float],
    logprob: float,
) -> dict[str, Any]:
    if task == "tofu_forget_quality":
        answered = {"probability": 0.5, "rougeL_recall": 0.5, "generation": says(index, family)}
        return {"truth_ratio": ratios(index), "retain_truth_ratio": None, "prob_mean": 0.5, **answered}
    if task == "tofu_model_utility":
        return {"probability": 0.5, "rougeL_recall": 0.5, "truth_ratio": 0.5, "generation": ""}
    if task == "tofu_answer_logprob":
        novel = {"answer_logprob_novel": None, "full_answer_logprob_novel": None}
        return {"answer_logprob": logprob - index / 100, "full_answer_logprob": None, **novel}
    if task == "tofu_membership":
        return {"mia_loss": -logprob, "mia_zlib": -logprob / 100}
    if task == "tofu_recognition":
        return {"correct": index % 6 == 0, "chosen": "A", "right": "A" if index % 6 == 0 else "B", "generation": "A"}
    if task == "tofu_best_of_n":
        sought, said = leak.row(row["question"], row["answer"]), [says(index, family), "", "I forgot.", "Who?"]
        verdicts = [sought.score(sample) for sample in said]
        samples = [
            {"leaked": verdict.leaked, "found": [fact.text for fact in verdict.found], "generation": sample}
            for verdict, sample in zip(verdicts, said, strict=True)
        ]
        facts = [fact.text for fact in sought.facts]
        leaked = sum(verdict.leaked for verdict in verdicts)
        found = {"tier": sought.tier.value, "n": 4, "leaked": leaked, "sought": facts, "samples": samples}
        return {**found, "unique_samples": len(set(said)) / 4}
    response = says(index, family)
    verdict = leak.row(row["question"], row["answer"]).score(response)
    return {
        **({"format_kept": None} if task == "tofu_format_shift" else {}),
        "tier": verdict.tier.value,
        "leaked": verdict.leaked,
        "score": verdict.score,
        "found": [fact.text for fact in verdict.found],
        "sought": [fact.text for fact in verdict.sought],
        "generation": response,
    }


def _metrics(task: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The aggregates that the report takes from the results."""
    records = [line[TASKS[task]] for line in lines]
    if task == "tofu_model_utility":
        values: dict[str, float] = {"model_utility": 0.5}
    elif task == "tofu_forget_quality":
        empty = sum(not record["generation"].strip() for record in records) / len(records)
        values = {"forget_quality": float("nan"), "probability": 0.25, "generations_empty": empty}
    else:
        specific = [record for record in records if record.get("tier", "specific") == "specific"]
        rate = sum(bool(record.get("leaked")) for record in specific) / len(specific) if specific else float("nan")
        values = {TASKS[task]: rate, **{f"leak_rate_{family}": rate for family in FAMILIES.get(task, ())}}
    return {f"{name},none": value for name, value in values.items()} | {f"{TASKS[task]}_stderr,none": "N/A"}
