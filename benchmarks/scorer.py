"""Accuracy of the leak scorer on labelled responses, and its speed.

    python benchmarks/scorer.py [--labels DIR] [--data DIR] [--answers DIR]

The lists were written from, and the threshold fixed on, the responses about retain authors (`retain_*`): it is the one
at which 2 % of plausible wrong answers pass. Those about forget authors (`forget_*`) check both; as their figures were
in view while variants of the scorer were compared and settings chosen, and hand-labelled items were read, only
responses about further authors make a clean test. Writes `benchmarks/scorer.json` and the table in
`docs/audits/leak-scorer.md`, and prints more. Compared with it are two scorers by words alone, on the same responses,
and what the full Phi's answers that are judged no leaks say instead: they were read, and `benchmarks/phi_misses.json`
has the readings by response.
One core, a few minutes.
"""

import argparse
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scorer_answers
from parity import ROOT, show

from lm_eval_tofu import files
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.background import Background, default_background
from lm_eval_tofu.metrics.kinds import Tier
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.words import fold, stems

SETS = ("gold", "paraphrased", "perturbed", "swapped", "echo", "refusal", "generations", "hand")
NOISE = (
    "perturbed: about 1 in 80 states a true novel fact all the same",
    "swapped: about 1 in 40 is true by chance",
    "generations: the labels are weak; 7.5 % of the retain models' answers were true guesses when read by hand",
    "hand: one reader, not blind; half leaks (0.5) are left out of the AUC",
)


MODELS = {
    "full Llama": ("weak: full", "gen:llama2-7b:"),
    "full Phi": ("weak: full", "gen:phi:"),
    "retain models": ("weak: retain", "gen:"),
}
"""Whose real answers are labelled: the label, and how the source begins."""
READ = ROOT / "benchmarks" / "phi_misses.json"
PASS = 0.02
"""Share of the plausible wrong answers about retain authors that a threshold lets pass."""
LOWER = 0.3
"""A threshold that lets too much pass, to show what it would bring."""


class Verdict(NamedTuple):
    """One labelled response and what the scorer makes of it."""

    record: dict[str, Any]
    score: leak.LeakScore


class Target(NamedTuple):
    """A line of the table: how its figure is read, and what it should be."""

    name: str
    target: str
    holds: Callable[[float], bool]


TARGETS = (
    Target("AUC, paraphrased against swapped", ">= .97", lambda value: value >= 0.97),
    Target("AUC, paraphrased against perturbed", ">= .94", lambda value: value >= 0.94),
    Target("AUC, paraphrased against echo", ">= .99", lambda value: value >= 0.99),
    Target("AUC, hand-labelled real answers", ">= .96", lambda value: value >= 0.96),
    Target("recall at 5 % false alarms, hand-labelled", ">= .88", lambda value: value >= 0.88),
    Target("the same, specific rows only", ">= .92", lambda value: value >= 0.92),
    Target("real answers judged leaks: full Llama", ">= .97", lambda value: value >= 0.97),
    Target("real answers judged leaks: full Phi", ">= .90", lambda value: value >= 0.90),
    Target("real answers judged leaks: retain models", "<= .04", lambda value: value <= 0.04),
    Target("echo judged leaks", "<= .005", lambda value: value <= 0.005),
    Target("refusals judged leaks", "<= .005", lambda value: value <= 0.005),
    Target("swapped judged leaks", "<= .02", lambda value: value <= 0.02),
    Target("gold answers judged leaks, specific rows", ">= .99", lambda value: value >= 0.99),
    Target("verdicts that flip between cut and uncut", "<= .01", lambda value: value <= 0.01),
)
SPEED = {"responses/s, row's facts cached": 10_000, "responses/s, from nothing": 1_500}


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties half (Mann-Whitney)."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(np.mean(below) / 2 / len(ordered))


def recall_at(positive: Sequence[float], negative: Sequence[float], false_alarms: float) -> float:
    """Share of the positives above the lowest threshold that lets at most that share of the negatives pass."""
    allowed = int(false_alarms * len(negative))
    return float(np.mean(np.asarray(positive) > np.sort(negative)[-1 - allowed]))


def judge(labels: Path, side: str, background: Background) -> dict[str, list[Verdict]]:
    """Score all labelled responses of one side, `retain` or `forget`."""
    sets = {}
    for name in SETS:
        path = labels / f"{side}_{name}.jsonl"
        records = [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
        sets[name] = [
            Verdict(record, leak.score(record["question"], record["answer"], record["response"], background=background))
            for record in records
        ]
    return sets


def measure(sets: dict[str, list[Verdict]], background: Background) -> dict[str, float]:
    """All accuracy figures of one side; those that it has no labels for are left out."""
    scores = {name: [verdict.score.score for verdict in verdicts] for name, verdicts in sets.items()}
    figures = {}
    for negative in ("swapped", "perturbed", "echo"):
        figures[f"AUC, paraphrased against {negative}"] = auc(scores["paraphrased"], scores[negative])
    if sets["hand"]:
        leaks = [verdict.score.score for verdict in sets["hand"] if verdict.record["label"] == 1]
        others = [verdict.score.score for verdict in sets["hand"] if verdict.record["label"] == 0]
        figures["AUC, hand-labelled real answers"] = auc(leaks, others)
        figures["recall at 5 % false alarms, hand-labelled"] = recall_at(leaks, others, 0.05)
        specific = [verdict for verdict in sets["hand"] if verdict.score.tier is Tier.SPECIFIC]
        sides = [[v.score.score for v in specific if v.record["label"] == label] for label in (1, 0)]
        figures["the same, specific rows only"] = recall_at(*sides, 0.05)
    for name in MODELS:
        add_share(figures, f"real answers judged leaks: {name}", of_models(sets, name))
    for shown, name in (("echo", "echo"), ("refusals", "refusal"), ("swapped", "swapped"), ("perturbed", "perturbed")):
        add_share(figures, f"{shown} judged leaks", sets[name])
    gold = sets["gold"]
    add_share(figures, "gold answers judged leaks, specific rows", [v for v in gold if v.score.tier is Tier.SPECIFIC])
    add_share(figures, "paraphrased judged leaks", sets["paraphrased"])
    pairs = [
        (verdict.score.leaked, leak.score(record["question"], record["answer"], raw, background=background).leaked)
        for verdict in sets["generations"]
        if (record := verdict.record) and (raw := record.get("response_raw")) and raw != record["response"]
    ]
    if pairs:
        figures["verdicts that flip between cut and uncut"] = float(np.mean([cut != uncut for cut, uncut in pairs]))
    for tier in Tier:
        figures[f"share of rows, tier {tier}"] = float(np.mean([verdict.score.tier is tier for verdict in gold]))
    return figures


def of_models(sets: dict[str, list[Verdict]], name: str) -> list[Verdict]:
    """The real answers of some models."""
    label, source = MODELS[name]
    records = ((verdict, verdict.record) for verdict in sets["generations"])
    return [verdict for verdict, record in records if record["label"] == label and record["source"].startswith(source)]


def recall(record: dict[str, Any], weight: Callable[[str], float], synonyms: dict[str, frozenset[str]]) -> float:
    """A scorer by words: how much of the answer's content that the question lacks is in the response, by weight."""
    question, answer, response = (stems(fold(record[part])) for part in ("question", "answer", "response"))
    sought = answer - question - lexicon().small
    found = {word for word in sought if not response.isdisjoint({word, *(synonyms.get(word, frozenset()) - question)})}
    whole = sum(weight(word) for word in sought)
    return sum(weight(word) for word in found) / whole if whole else 0.0


def compare(sets: dict[str, dict[str, list[Verdict]]], background: Background) -> dict[str, dict[str, float]]:
    """What scorers judge leaks on forget rows, each above the lowest threshold that `PASS` of retain's swapped pass."""
    rarest = min(background.shares.values())
    inverse = {word: -math.log(share) for word, share in background.shares.items()}
    scorers: dict[str, Callable[[Verdict], float]] = {
        "novel content words": lambda verdict: recall(verdict.record, lambda _: 1.0, {}),
        "the same by their rarity (IDF), with synonyms": lambda verdict: recall(
            verdict.record, lambda word: inverse.get(word, -math.log(rarest)), lexicon().synonyms
        ),
        "this scorer": lambda verdict: verdict.score.score,
    }
    forget = sets["forget"]
    judged = {**{name: of_models(forget, name) for name in MODELS}, "swapped": forget["swapped"]}

    def above(score: Callable[[Verdict], float], threshold: float) -> dict[str, float]:
        return {
            whose: float(np.mean([score(verdict) > threshold for verdict in verdicts]))
            for whose, verdicts in judged.items()
        }

    compared = {}
    for name, score in scorers.items():
        wrong = sorted((score(verdict) for verdict in sets["retain"]["swapped"]), reverse=True)
        compared[name] = above(score, wrong[int(PASS * len(wrong))])  # the first that must not pass
    compared[f"this scorer, threshold {LOWER}"] = above(scorers["this scorer"], LOWER)
    return compared


def misses(sets: dict[str, dict[str, list[Verdict]]], readings: dict[str, str]) -> dict[str, dict[str, int]]:
    """What the full Phi's answers say that are judged no leaks, by the reading of each: how many of either side."""
    counts = {}
    for side, verdicts in sets.items():
        missed = [verdict.record["id"] for verdict in of_models(verdicts, "full Phi") if not verdict.score.leaked]
        counts[side] = dict(Counter(readings.get(number, "not read") for number in missed))
    return counts


def add_share(figures: dict[str, float], name: str, verdicts: Sequence[Verdict]) -> None:
    """Add the share of leaks among some verdicts, if there are any."""
    if verdicts:
        figures[name] = float(np.mean([verdict.score.leaked for verdict in verdicts]))


def speed(sets: dict[str, list[Verdict]], background: Background, repeats: int = 5) -> dict[str, float]:
    """Responses a second of this process's own time: the best of several runs, which others on the machine disturb."""
    records = [verdict.record for verdict in (*sets["generations"], *sets["perturbed"])]
    texts = [(record["question"], record["answer"], record["response"]) for record in records]
    distinct = list({text[:2]: text for text in texts}.values())
    best = dict.fromkeys(SPEED, 0.0)
    for _ in range(repeats):
        rates = []
        for given in (texts, distinct):
            if given is distinct:
                leak.forget_rows()
            start = time.process_time()
            for prompt, answer, response in given:
                leak.score(prompt, answer, response, background=background)
            rates.append(len(given) / (time.process_time() - start))
        best = {name: max(best[name], rate) for name, rate in zip(best, rates, strict=True)}
    return best


def table(retain: dict[str, float], forget: dict[str, float], rates: dict[str, float]) -> str:
    """The Markdown table for the documentation."""
    lines = ["| | target | `retain_*` | `forget_*` | |", "|---|---|---|---|---|"]
    for name, target, holds in TARGETS:
        ours = [f"{figures[name]:.4f}" if name in figures else "" for figures in (retain, forget)]
        verdict = "met" if holds(forget[name]) else "missed"
        lines.append(f"| {name} | {target} | {ours[0]} | {ours[1]} | {verdict} |")
    for name, target in SPEED.items():
        lines.append(
            f"| {name} | >= {target:,} | {rates[name]:,.0f} | | {'met' if rates[name] >= target else 'missed'} |"
        )
    for name in sorted(forget.keys() - {target.name for target in TARGETS}):
        lines.append(f"| {name} | | {retain[name]:.4f} | {forget[name]:.4f} | |")
    return "\n".join(lines)


def document_table(figures: dict[str, dict[str, float]]) -> str:
    """The Markdown table for the documentation: every target, and what is reached on the forget rows."""
    lines = ["| | target | reached |", "|---|---|---|"]
    for name, target, holds in TARGETS:
        value = figures["forget"][name]
        lines.append(f"| {name} | {target} | " + (f"{value:.4f} |" if holds(value) else f"**{value:.4f}**, missed |"))
    for name, least in SPEED.items():
        value = figures["speed"][name]
        reached = f"{value:,.0f} |" if value >= least else f"**{value:,.0f}**, missed |"
        lines.append(f"| {name} | >= {least:,} | {reached}")
    return "\n".join(lines)


def comparison_table(compared: dict[str, dict[str, float]], missed: dict[str, dict[str, int]]) -> str:
    """The further tables for the documentation: scorers beside one another, and the full Phi's misses."""
    columns = [*MODELS, "swapped"]
    lines = [f"| judged leaks | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, shares in compared.items():
        lines.append(f"| {name} | {' | '.join(f'{shares[column]:.4f}' for column in columns)} |")
    sides = list(missed)
    lines += ["", f"| the full Phi's answers judged no leaks say | {' | '.join(f'`{side}_*`' for side in sides)} |"]
    lines.append("|---" * (len(sides) + 1) + "|")
    for reading in dict.fromkeys(reading for counts in missed.values() for reading in counts):
        lines.append(f"| {reading} | {' | '.join(str(missed[side].get(reading, 0)) for side in sides)} |")
    return "\n".join(lines)


def main() -> None:
    """Score, measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=ROOT.parent / "shared" / "leaks", help="labelled responses")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "tofu", help="TOFU in the hub's layout")
    parser.add_argument("--answers", type=Path, default=ROOT.parent / "shared" / "answers", help="answers to anything")
    arguments = parser.parse_args()
    answers = [json.loads(line)["answer"] for line in (arguments.data / "retain90.json").read_bytes().splitlines()]
    report: dict[str, Any] = {
        "date and machine": f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, one used, "
        f"Python {platform.python_version()}",
        "threshold": leak.THRESHOLD,
        "label noise": NOISE,
    }
    backgrounds = {"retain answers": Background.from_answers(answers), "word lists": default_background()}
    for name, background in backgrounds.items():
        sets = {side: judge(arguments.labels, side, background) for side in ("retain", "forget")}
        figures = {side: measure(sets[side], background) for side in sets}
        rates = speed(sets["retain"], background)
        report[f"words weighed by {name}"] = {**figures, "speed": rates}
        if name == "retain answers":
            report["beside scorers by words"] = compare(sets, background)
            report["the full Phi's misses"] = misses(sets, json.loads(READ.read_text(encoding="utf-8")))
        print(f"\nWords weighed by {name}:\n\n{table(figures['retain'], figures['forget'], rates)}")
    report["answers to other questions"] = elsewhere = scorer_answers.measure(arguments.answers)
    parts = (scorer_answers.table, scorer_answers.kinds_table, scorer_answers.reliability_table)
    answers_table = "\n\n".join(part(elsewhere) for part in parts)
    print(f"\nAnswers to other questions:\n\n{answers_table}")
    print("\nLabel noise: " + "; ".join(NOISE) + ".")
    files.write_text(ROOT / "benchmarks" / "scorer.json", json.dumps(report, indent=2) + "\n")
    note, shown = report["date and machine"], document_table(report["words weighed by retain answers"])
    show("scorer", f"{note}.\n\n{shown}")
    second = comparison_table(report["beside scorers by words"], report["the full Phi's misses"])
    print(f"\n{second}")
    show("scorer-beside", second)
    show("scorer-answers", answers_table)


if __name__ == "__main__":
    main()
