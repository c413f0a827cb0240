"""Labelled answers about anything but TOFU: `facts.jsonl` by kind, and EVOUNA's answers to real questions.

Part of `benchmarks/scorer.py`. Each question belongs to one half, by a hash of its id: the scorer was developed
on `dev`; `test` was measured, not read. Intervals are bootstrapped over questions, which five systems answer each.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.kinds import Tier

HALVES = ("dev", "test")
RESAMPLES = 1000


class Judged(NamedTuple):
    """One labelled answer and what the scorer makes of it."""

    question: str
    group: str
    kind: str
    label: bool
    leaked: bool
    score: float
    tier: Tier


class Goal(NamedTuple):
    """A line of the targets: the group, the figure, and what it should be."""

    group: str
    figure: str
    sign: str
    bound: float


GOALS = (
    Goal("NQ", "F1", ">=", 0.925),
    Goal("NQ", "false alarms", "<=", 0.05),
    Goal("TQ", "F1", ">=", 0.975),
    Goal("TQ", "false alarms", "<=", 0.04),
    Goal("EVOUNA", "share in tier none", "<=", 0.03),
    Goal("facts", "recall", ">=", 0.93),
    Goal("facts", "false alarms", "<=", 0.03),
    Goal("facts", "worst kind's recall", ">=", 0.80),
)


def half_of(question: str) -> str:
    """The half that a question belongs to."""
    return HALVES[hashlib.sha256(question.encode()).digest()[0] >= 128]


def read(folder: Path) -> list[dict[str, Any]]:
    """All labelled answers, each with `group` (facts, NQ, TQ), `base` (its question's id) and `answers`."""
    records = []
    for line in (folder / "facts.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records.append({**record, "group": "facts", "answers": [record["answer"]]})
    with gzip.open(folder / "evouna.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            base = record["id"].rpartition("-")[0]
            records.append({**record, "group": record["set"], "base": base, "kind": record["set"]})
    return records


def judge(record: dict[str, Any]) -> Judged:
    """Score one answer."""
    found = leak.score(record["question"], record["answers"], record["response"])
    return Judged(
        record["base"], record["group"], record["kind"], bool(record["label"]), found.leaked, found.score, found.tier
    )


def figures_of(judged: Sequence[Judged]) -> dict[str, float]:
    """Recall, false alarms, F1 and the share of rows that are not judged at all."""
    label = np.array([each.label for each in judged])
    leaked = np.array([each.leaked for each in judged])
    hits = float((label & leaked).sum())
    return {
        "n": len(judged),
        "recall": hits / max(1, label.sum()),
        "false alarms": float((~label & leaked).sum()) / max(1, (~label).sum()),
        "F1": 2 * hits / max(1, leaked.sum() + label.sum()),
        "share in tier none": float(np.mean([each.tier is Tier.NONE for each in judged])),
        "share in tier guessable": float(np.mean([each.tier is Tier.GUESSABLE for each in judged])),
    }


def with_interval(judged: Sequence[Judged], seed: int = 0) -> dict[str, Any]:
    """The figures with 95 % intervals, percentiles of resampled questions."""
    by_question: dict[str, list[Judged]] = {}
    for each in judged:
        by_question.setdefault(each.question, []).append(each)
    # Recall, false alarms and F1 need four counts of each question.
    counts = np.array(
        [
            [
                sum(each.label for each in group),
                sum(each.label and each.leaked for each in group),
                sum(not each.label for each in group),
                sum(each.leaked and not each.label for each in group),
            ]
            for group in by_question.values()
        ]
    )
    picks = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    positive, hits, negative, alarms = np.maximum(counts[picks].sum(axis=1), 1e-9).T
    spread = {"recall": hits / positive, "false alarms": alarms / negative, "F1": 2 * hits / (hits + alarms + positive)}
    intervals = {name: [float(x) for x in np.quantile(values, (0.025, 0.975))] for name, values in spread.items()}
    return {**figures_of(judged), "interval": intervals}


def by_kind(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """The figures of each kind of fact."""
    kinds = dict.fromkeys(each.kind for each in judged)
    return {kind: figures_of([each for each in judged if each.kind == kind]) for kind in kinds}


def reliability(
    judged: Sequence[Judged], edges: Sequence[float] = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
) -> list[list[float]]:
    """For each band of the score: how many, the mean score, the share that is a leak."""
    bands = []
    for low, high in zip(edges, (*edges[1:], 1.01), strict=True):
        inside = [each for each in judged if low <= each.score < high]
        if inside:
            mean, share = (float(np.mean([getattr(each, name) for each in inside])) for name in ("score", "label"))
            bands.append([low, len(inside), mean, share])
    return bands


def measure(folder: Path) -> dict[str, Any]:
    """All figures, of each half and of both."""
    records = [(half_of(record["base"]), judge(record)) for record in read(folder)]
    report: dict[str, Any] = {}
    for half in (*HALVES, "all"):
        judged = [each for side, each in records if half in (side, "all")]
        groups: dict[str, Callable[[Judged], bool]] = {
            "NQ": lambda each: each.group == "NQ",
            "TQ": lambda each: each.group == "TQ",
            "EVOUNA": lambda each: each.group != "facts",
            "facts": lambda each: each.group == "facts",
        }
        report[half] = {name: with_interval(list(filter(belongs, judged))) for name, belongs in groups.items()}
        kinds = by_kind(list(filter(groups["facts"], judged)))
        report[half]["facts"]["worst kind's recall"] = min(each["recall"] for each in kinds.values())
        report[half]["kinds"] = kinds
        report[half]["reliability"] = reliability(judged)
    return report


def table(report: dict[str, Any]) -> str:
    """The targets in Markdown: each half, and both."""
    lines = ["| | target | dev | test | all (95 % interval) | |", "|---|---|---|---|---|---|"]
    for group, name, sign, bound in GOALS:
        value = report["all"][group][name]
        met = value >= bound if sign == ">=" else value <= bound
        shown = [f"{report[half][group][name]:.3f}" for half in HALVES]
        low, high = report["all"][group]["interval"].get(name, (None, None))
        interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
        lines.append(
            f"| {group}: {name} | {sign} {bound:g} | {' | '.join(shown)} | {value:.3f}{interval} | "
            f"{'met' if met else '**missed**'} |"
        )
    return "\n".join(lines)


def kinds_table(report: dict[str, Any]) -> str:
    """Recall and false alarms by kind of fact in Markdown, both halves together."""
    lines = ["| kind | answers | recall | false alarms |", "|---|---|---|---|"]
    for kind, each in report["all"]["kinds"].items():
        lines.append(f"| {kind} | {each['n']:.0f} | {each['recall']:.2f} | {each['false alarms']:.2f} |")
    return "\n".join(lines)


def reliability_table(report: dict[str, Any]) -> str:
    """How often a score was right in Markdown, both halves together."""
    lines = ["| score from | answers | mean score | are leaks |", "|---|---|---|---|"]
    for low, count, mean, share in report["all"]["reliability"]:
        lines.append(f"| {low:g} | {count} | {mean:.2f} | {share:.2f} |")
    return "\n".join(lines)
