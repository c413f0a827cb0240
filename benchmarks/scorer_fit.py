"""Fits how evidence becomes a probability, and tries whether adding facts up in another way would be better.

    python benchmarks/scorer_fit.py [--labels DIR] [--data DIR] [--answers DIR]

From the development labels of three sources, each of the same weight, right and wrong answers alike: responses about
TOFU's retain authors, `facts.jsonl` and EVOUNA (the `dev` half of both). Prints the curve that
`lm_eval_tofu/metrics/verdict.py` holds, scaled so that .5 is the threshold (2 % of retain's swapped answers pass), its
reliability in ten-fold cross-validation by row, and what logistic regressions on the features would reach instead.
"""

import argparse
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scorer_answers
from parity import ROOT
from scorer import PASS, auc, recall_at
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.verdict import Features

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.1, 1.2, 1.4, 1.8)
"""Evidence at which the curve has its points."""
FITTED = ("paraphrased", "perturbed", "swapped", "echo", "refusal", "generations")
FOLDS = 10
SOURCES = {f"retain_{name}": "TOFU" for name in FITTED} | {"facts dev": "facts", "NQ dev": "EVOUNA", "TQ dev": "EVOUNA"}
WEAK = {"weak: full": 1, "weak: retain": 0}


class Case(NamedTuple):
    """One labelled response: its source, its row, its label and the features of the best answer."""

    source: str
    row: str
    label: float
    features: Features


def features_of(prompt: str, answers: Any, response: str, background: Background | None = None) -> Features:
    """What speaks for a leak."""
    return leak.explain(prompt, answers, response, background=background).features


def collect(labels: Path, data: Path, answers: Path) -> list[Case]:
    """All labelled responses: those of `SOURCES` are fitted on, the others looked at."""
    texts = [json.loads(line)["answer"] for line in (data / "retain90.json").read_bytes().splitlines()]
    background = Background.from_answers(texts)
    cases = []
    for path in sorted(labels.glob("*_*.jsonl")):
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            found = features_of(record["question"], record["answer"], record["response"], background)
            row = f"{path.stem.partition('_')[0]} {record['row']}"
            cases.append(Case(path.stem, row, WEAK.get(record["label"], record["label"]), found))
    for record in scorer_answers.read(answers):
        source = f"{record['group']} {scorer_answers.half_of(record['base'])}"
        found = features_of(record["question"], record["answers"], record["response"])
        cases.append(Case(source, record["base"], record["label"], found))
    return cases


def weights_of(cases: list[Case]) -> np.ndarray:
    """Weights that make the three sources and the two labels count alike; 0 for what is not fitted on."""
    keys = [(SOURCES.get(case.source), case.label) for case in cases]
    counts = {key: keys.count(key) for key in set(keys) if key[0]}
    return np.array([1 / counts[key] if key in counts else 0.0 for key in keys])


def fit(evidence: np.ndarray, label: np.ndarray, weight: np.ndarray) -> list[tuple[float, float]]:
    """A rising curve through `EDGES`: isotonic regression, its odds scaled so that evidence 1 is .5."""
    regression = IsotonicRegression(y_min=0.005, y_max=0.995, out_of_bounds="clip")
    smooth = regression.fit(evidence, label, sample_weight=weight)
    around = np.linspace(-0.08, 0.08, 17)  # a point stands for its surroundings, so that steps become slopes
    level = np.array([np.mean(smooth.predict(edge + around)) for edge in EDGES])
    odds = level / (1 - level)
    odds /= odds[EDGES.index(1.0)]
    rising = np.maximum.accumulate(odds / (1 + odds))
    # Strictly rising, so that no two amounts of evidence become one score.
    places = np.arange(len(EDGES))
    values = np.maximum(rising + 0.005 * (places - EDGES.index(1.0)), 0.005 * (places + 1))
    return [(edge, round(float(value), 3)) for edge, value in zip(EDGES, values, strict=True)]


def main() -> None:
    """Fit, cross-validate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, folder in (("labels", "leaks"), ("data", "tofu"), ("answers", "answers")):
        parser.add_argument(f"--{name}", type=Path, default=ROOT.parent / "shared" / folder)
    cases = collect(**vars(parser.parse_args()))
    label, weight = np.array([case.label for case in cases]), weights_of(cases)
    evidence = np.array([case.features.evidence for case in cases])
    used = weight > 0
    print("CURVE =", tuple(fit(evidence[used], label[used], weight[used])))

    folds = np.array([hashlib.sha256(case.row.encode()).digest()[1] % FOLDS for case in cases])
    held_out = np.zeros(len(cases))
    for fold in range(FOLDS):
        inside, outside = used & (folds != fold), folds == fold
        curve = fit(evidence[inside], label[inside], weight[inside])
        held_out[outside] = np.interp(evidence[outside], *zip(*curve, strict=True))
    print("\nCross-validated by row: score from, responses, mean score, share of leaks (weighed)")
    edges = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.01)
    for low, high in itertools.pairwise(edges):
        band = used & (held_out >= low) & (held_out < high)
        if band.any():
            means = [np.average(values[band], weights=weight[band]) for values in (held_out, label)]
            print(f"{low:5} {band.sum():6}", *(f"{mean:.2f}" for mean in means))

    matrix = np.array([case.features for case in cases])
    weighed = weight[used] * used.sum() / weight.sum()
    model = LogisticRegression(C=100, max_iter=3000).fit(matrix[used], label[used], sample_weight=weighed)
    print("\nLogistic regression on share, best, passage:", model.coef_.round(2), model.intercept_.round(2))
    source = np.array([case.source for case in cases])
    for name, score in (("this scorer", evidence), ("regression", model.decision_function(matrix))):
        swapped = np.sort(score[source == "retain_swapped"])[::-1]
        threshold = swapped[int(PASS * len(swapped))]
        hand = [score[(source == "forget_hand") & (label == value)] for value in (1, 0)]
        real = score[(source == "forget_generations") & (label == 0)]
        print(
            f"{name}: hand-labelled AUC {auc(*hand):.4f}, recall at 5 % {recall_at(*hand, 0.05):.4f}; "
            f"retain models judged leaks {np.mean(real > threshold):.4f}"
        )


if __name__ == "__main__":
    main()
