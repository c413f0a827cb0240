"""Compares `lm-eval-tofu memorization` and `depth` with the codes that defined their figures, row by row; times a pass.

open-unlearning's figures of SmolLM2-135M-Instruct, of the same model without its last two layers, and of two nano arms,
and UDS's of three nano arms, lie with the nano models in a directory that is not part of the repository (`--figures`).
`python benchmarks/parity.py --memorisation` runs this: it prints every figure of both sides, the worst difference of a
row last, and ends with status 1 where a row or an aggregate differs by more than 0.001. `--speed` times our pass
against a plain forward pass over the same tokens instead.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from smollm2 import export

from lm_eval_tofu import chat, files, tofu
from lm_eval_tofu.metrics import depth as depth_metrics
from lm_eval_tofu.unlearn.data import IGNORED, Example, encode_rows
from lm_eval_tofu.whitebox import MEMORIZATION, answers, depth, memorization, models, results

ROOT = Path(__file__).parent.parent
FIGURES = ROOT.parent / "shared" / "parity"
TOLERANCE = 1e-3
FEWER_LAYERS = 28
SETTINGS = {
    # Model: its reference model, its retain arm, and whether the figures hold gradient norms.
    "smollm2_28_layers": (None, None, False),
    "smollm2": ("smollm2_28_layers", "smollm2_28_layers", True),
    "nano_retain": ("nano_full", None, True),
    "nano_full": ("nano_retain", "nano_retain", True),
}
UDS_ARMS = ("nano_npo", "nano_full", "nano_retain")


class Figure(NamedTuple):
    """One figure of one model: both aggregates, and the worst difference over its rows (NaN without rows)."""

    name: str
    model: str
    ours: float
    theirs: float
    worst: float
    rows: int

    @property
    def agrees(self) -> bool:
        """Whether rows and aggregate are within tolerance; PrivLeak is in percent, so relative there."""
        scale = max(1.0, abs(self.theirs))
        return abs(self.ours - self.theirs) <= TOLERANCE * scale and (not self.rows or self.worst <= TOLERANCE)


def without_layers(model: Path, output: Path) -> Path:
    """A checkpoint whose configuration leaves the last layers out; its weights are a link to the model's."""
    output.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        target = output / file.name
        if file.name == "config.json":
            config = json.loads(file.read_text(encoding="utf-8"))
            files.write_json(target, {**config, "num_hidden_layers": FEWER_LAYERS})
        elif not target.exists():
            target.symlink_to(file.resolve())
    return output


def audit(name: str, paths: dict[str, Path], data: str, work: Path) -> dict[str, Any]:
    """The results of one model; token values that are there already are not computed again."""
    reference, retain, gradients = SETTINGS[name]
    nano = name.startswith("nano")
    path = memorization.memorization(
        memorization.MemorizationConfig(
            model=str(paths[name]),
            output=work / name,
            reference_model=None if reference is None else str(paths[reference]),
            retain_reference=None if retain is None else work / retain,
            gradient_norm=gradients,
            tofu="mini" if nano else data,
            forget_split="forget10" if nano else "forget01",
            batch_size=32,
            dtype="float32",
            device="cpu",
        )
    )
    return files.read_json(path)


def compare(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Figure]:
    """Every figure that both sides have."""
    figures, rows = results.metrics_of(ours, MEMORIZATION), ours[MEMORIZATION]["rows"]
    for metric in ("extraction_strength", "exact_memorization", *memorization.ATTACKS):
        if metric not in theirs or metric not in figures:
            continue
        parts = theirs[metric] if metric.startswith("mia") else {"forget": theirs[metric]}
        differences = [
            abs(row[metric] - parts[part]["value_by_index"][str(row["index"])]["score"])
            for part in rows
            if part in parts
            for row in rows[part]
        ]
        yield Figure(metric, name, figures[metric], theirs[metric]["agg_value"], max(differences), len(differences))
    privleak = "privleak" if SETTINGS[name][1] else "privleak_without_retain"
    yield Figure("privleak", name, figures[privleak], theirs["privleak"]["agg_value"], 0.0, 0)


def uds_example(tokenizer: Any, row: dict[str, Any]) -> Example:
    """A row as UDS's code reads it: prefix and continuation tokenized apart, labels on the entity."""
    prompt = tokenizer.encode(row["prompt"])
    reference = tokenizer.encode(row["reference_text"], add_special_tokens=False)
    start, stop = row["eval_span"]
    labels = [token if start <= index < stop else IGNORED for index, token in enumerate(reference)]
    return Example(input_ids=prompt + reference, labels=[IGNORED] * len(prompt) + labels)


def compare_uds(folder: Path) -> Iterator[Figure]:
    """UDS of the nano arms in its compatible form; a row's difference is that of its deltas."""
    theirs = json.loads((folder / "uds.json").read_text(encoding="utf-8"))
    for arm in UDS_ARMS:
        named = {"model": arm, "full": "nano_full", "retain": "nano_retain"}
        located = {each: models.locate(f"--{each}", str(folder / "models" / name)) for each, name in named.items()}
        examples = [uds_example(located["full"].tokenizer, row) for row in theirs["rows"]]
        found = depth.row_depths(located, examples, batch_size=16, device="cpu", dtype="float32", uds_compat=True)
        scored = theirs["arms"][arm]
        differences = [
            abs(mine - other)
            for ours, row, theirs_of_arm in zip(found, theirs["rows"], scored["rows"], strict=True)
            for mine, other in zip([*ours.s1, *ours.s2], [*row["s1_deltas"], *theirs_of_arm["s2_deltas"]], strict=True)
        ]
        score = depth_metrics.mean_over_rows([row.uds() for row in found])
        yield Figure("uds", arm, score, scored["uds"], max(differences), len(found))


def table(figures: list[Figure]) -> str:
    """The Markdown table for the documentation."""
    lines = ["| figure | model | its code | ours | rows | worst row difference |", "|---|---|---|---|---|---|"]
    for each in figures:
        worst = f"{each.worst:.1e}" if each.rows else ""
        lines.append(
            f"| {each.name} | {each.model} | {each.theirs:.6f} | {each.ours:.6f} | {each.rows or ''} | {worst} |"
        )
    return "\n".join(lines)


def note() -> str:
    """Date, machine and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "numpy"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{date.today().isoformat()}, {machine}, Python {platform.python_version()}, {packages}, float32."


def speed(model: Path, data: str, every: int, batch_size: int) -> dict[str, Any]:
    """Seconds of a plain forward pass and of ours over forget10 and holdout10, batch after batch in turn."""
    located = models.locate("--model", str(model))
    source = tofu.resolve_source(data)
    rows = [row for name in ("forget10_perturbed", "holdout10") for row in tofu.load(name, source)[::every]]
    examples = encode_rows(located.tokenizer, rows, chat.Prompting(True), located.context)
    order = sorted(range(len(examples)), key=lambda row: -len(examples[row]["input_ids"]))
    loaded = models.load_causal(located, "float32", "cpu")
    spent = {"plain": 0.0, "ours": 0.0}

    def plain(batch: answers.Batch) -> None:
        with torch.inference_mode():
            loaded(**{name: batch.inputs[name] for name in ("input_ids", "attention_mask")}, use_cache=False)

    runs = {"plain": plain, "ours": lambda batch: answers.token_values(loaded, batch)}
    batches = [*answers.batches(examples, order, batch_size, "cpu")]
    for number, batch in enumerate([batches[-1], *batches]):
        for name in list(runs) if number % 2 else list(reversed(runs)):
            started = time.process_time()
            runs[name](batch)
            if number:  # the first batch warms up
                spent[name] += time.process_time() - started
    positions = max(len(batch.tokens) for batch in batches)
    return {
        "rows": len(rows),
        "tokens": sum(len(example["input_ids"]) for example in examples),
        "batch size": batch_size,
        "CPU seconds, plain forward pass": spent["plain"],
        "CPU seconds, ours": spent["ours"],
        "ratio": spent["ours"] / spent["plain"],
        "answer positions of the largest batch": positions,
        "all positions of that batch": max(batch.inputs["input_ids"].numel() for batch in batches),
    }


def speed_sentence(timed: dict[str, Any]) -> str:
    """What `speed` found, for the documentation."""
    return (
        f"Measured with SmolLM2-135M-Instruct on {timed['rows']} rows of forget10 and holdout10 ({timed['tokens']:,} "
        f"tokens, batches of {timed['batch size']}): {timed['ratio']:.2f} times the CPU time of a plain forward pass. "
        f"In the largest batch {timed['answer positions of the largest batch']:,} of "
        f"{timed['all positions of that batch']:,} positions are projected onto the vocabulary. {timed['note']}"
    )


def main(arguments: argparse.Namespace) -> int:
    """Compare or time, print, and write with `--write`; exit code 1 where something is out of tolerance.

    Raises:
        SystemExit: The reference figures are not there.
    """
    from parity import show

    work = arguments.work / "memorization"
    smollm2 = export(arguments.work / "smollm2")
    data = tofu.resolve_source(arguments.data).location
    stored = ROOT / "benchmarks" / "memorization.json"
    before = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    if arguments.speed:
        timed = speed(smollm2, data, arguments.every, 16)
        print(json.dumps(timed, indent=2))
        if arguments.write:
            timed = {"note": note(), **timed}
            files.write_text(stored, json.dumps({**before, "speed": timed}, indent=2) + "\n")
            show("memorisation-speed", speed_sentence(timed))
        return 0 if timed["ratio"] <= 1.3 else 1
    folder = arguments.figures
    if not (folder / "memorisation.json").is_file():
        raise SystemExit(
            f"{folder} has no memorisation.json: name the directory of the reference figures with --figures"
        )
    theirs = json.loads((folder / "memorisation.json").read_text(encoding="utf-8"))
    paths = {name: folder / "models" / name for name in UDS_ARMS}
    paths |= {"smollm2": smollm2, "smollm2_28_layers": without_layers(smollm2, arguments.work / "smollm2_28_layers")}
    figures = [figure for name in SETTINGS for figure in compare(name, audit(name, paths, data, work), theirs[name])]
    figures += compare_uds(folder)
    if arguments.write:
        content = {**before, "parity": {"note": note(), "figures": [each._asdict() for each in figures]}}
        files.write_text(stored, json.dumps(content, indent=2) + "\n")
        show("memorisation", f"{note()}\n\n{table(figures)}")
    print(table(figures))
    problems = [f"{each.name} of {each.model}" for each in figures if not each.agrees]
    print(f"out of tolerance: {', '.join(problems)}" if problems else "everything within tolerance")
    worst = max(figures, key=lambda each: each.worst)
    print(f"worst difference of a row: {worst.worst:.1e} ({worst.name} of {worst.model}; allowed: {TOLERANCE})")
    return 1 if problems else 0
