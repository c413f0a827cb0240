"""The benchmark's metrics: hand-derived cases, degenerate ones, and open-unlearning's own figures."""

import json
import math
from typing import Any

import numpy as np
import pytest
from conftest import needs

from lm_eval_tofu.metrics import benchmark, text


class TestForgetQuality:
    @pytest.mark.parametrize(("steps", "expected"), [(14, 0.967), (20, 0.700), (24, 0.468)])
    def test_p_at_an_exact_distance(self, steps: int, expected: float) -> None:
        """n = 400 and D = steps/400: `steps` values of the second sample moved to the far end, ties elsewhere."""
        ours = [float(value) for value in range(400)]
        theirs = [value if value >= steps else value + 1000 for value in ours]
        quality = benchmark.forget_quality(ours, theirs)
        assert quality.statistic == pytest.approx(steps / 400, abs=1e-12)
        assert quality.p_value == pytest.approx(expected, abs=5e-4)
        assert quality.log10_p_value == pytest.approx(math.log10(quality.p_value))

    def test_four_rows_by_hand(self) -> None:
        """{1, 2, 3, 4} against {3.5, 4.5, 5.5, 6.5}: below 3.5 the first has 3 of 4 values, the second none: D = 3/4.

        p counts the paths of 4 steps right and 4 steps up, all C(8, 4) = 70 equally likely, whose two coordinates
        differ by 3 or more somewhere. By the reflection principle the paths that reach a difference of +3 are
        C(8, 4 + 3) = C(8, 7) = 8, those that reach -3 are 8, and none reaches both (that would be C(8, 4 + 6) = 0).
        p = 16/70.
        """
        quality = benchmark.forget_quality([1, 2, 3, 4], [3.5, 4.5, 5.5, 6.5])
        assert quality.statistic == pytest.approx(0.75)
        assert quality.p_value == pytest.approx(16 / 70)
        assert quality.n == 4

    def test_identical_samples(self) -> None:
        values = list(np.random.default_rng(0).random(400))
        assert benchmark.forget_quality(values, values[::-1]) == (1, 0, 0, 400)
        assert benchmark.forget_quality([0.5] * 9, [0.5] * 9).p_value == 1

    def test_a_model_that_never_forgot(self) -> None:
        """D = 1 at n = 400: p = 2 / C(800, 400), far below what its four printed decimals show."""
        quality = benchmark.forget_quality([0.1] * 400, [0.9] * 400)
        assert quality.statistic == 1
        assert quality.log10_p_value == pytest.approx(math.log10(2) - math.log10(math.comb(800, 400)), abs=1e-6)

    def test_one_row(self) -> None:
        assert benchmark.forget_quality([1.0], [2.0]).p_value == 1

    def test_infinite_ratios_are_the_largest(self) -> None:
        assert benchmark.forget_quality([math.inf, 1.0], [math.inf, 1.0]).statistic == 0

    @pytest.mark.parametrize("pair", [([math.nan, 1.0], [1.0, 2.0]), ([1.0, 2.0], [math.nan, 1.0])])
    def test_nan(self, pair: tuple[list[float], list[float]]) -> None:
        quality = benchmark.forget_quality(*pair)
        assert all(math.isnan(value) for value in quality[:3])
        assert quality.n == 2

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="no truth ratios"):
            benchmark.forget_quality([], [])
        with pytest.raises(ValueError, match="2 here, 1 in the reference"):
            benchmark.forget_quality([1.0, 2.0], [1.0])


class TestTruthRatio:
    def test_by_hand(self) -> None:
        """Losses ln 4 (true) and ln 2, ln 8 (false): mean of the false ones ln 4, so R = (1/4) / (1/4) = 1.

        With losses ln 8 (true) and ln 2 (false): R = (1/2) / (1/8) = 4.
        """
        log = math.log
        assert benchmark.truth_ratio(log(4), [log(2), log(8)], eps=0) == pytest.approx(1)
        assert benchmark.truth_ratio(log(8), [log(2)], eps=0) == pytest.approx(4)

    def test_eps_matters_for_collapsed_models_only(self) -> None:
        """At a loss of 50 nats, exp(-50) = 2e-22 is nothing beside 1e-10: R = exp(-50) / 1e-10 = 1.9e-12, not 1."""
        assert benchmark.truth_ratio(2.0, [3.0]) == pytest.approx(math.exp(-1), rel=1e-8)
        assert benchmark.truth_ratio(50.0, [50.0]) == pytest.approx(math.exp(-50) / 1e-10, rel=1e-6)
        assert benchmark.truth_ratio(50.0, [50.0], eps=0) == pytest.approx(1)

    def test_extremes(self) -> None:
        assert benchmark.truth_ratio(2000.0, [1.0], eps=0) == math.inf
        assert benchmark.truth_ratio(1.0, [2000.0]) == 0
        assert math.isnan(benchmark.truth_ratio(math.nan, [1.0]))
        assert math.isnan(benchmark.truth_ratio(1.0, [1.0, math.nan]))
        with pytest.raises(ValueError, match="no perturbed answers"):
            benchmark.truth_ratio(1.0, [])

    def test_aggregates_by_hand(self) -> None:
        """R = 1/2, 4, 1: min(R, 1/R) = 1/2, 1/4, 1, mean 7/12; max(0, 1 - R) = 1/2, 0, 0, mean 1/6."""
        assert benchmark.forget_truth_ratio([0.5, 4, 1]) == pytest.approx(7 / 12)
        assert benchmark.utility_truth_ratio([0.5, 4, 1]) == pytest.approx(1 / 6)
        assert benchmark.forget_truth_ratio([0.0, math.inf]) == 0
        assert math.isnan(benchmark.forget_truth_ratio([1, math.nan]))
        assert math.isnan(benchmark.utility_truth_ratio([1, math.nan]))
        for aggregate in (benchmark.forget_truth_ratio, benchmark.utility_truth_ratio):
            with pytest.raises(ValueError, match="no truth ratios"):
                aggregate([])


def test_probability_by_hand() -> None:
    """Tokens of probability 1/2 and 1/8: loss (ln 2 + ln 8) / 2 = ln 4, probability 1/4."""
    assert benchmark.probability((math.log(2) + math.log(8)) / 2) == pytest.approx(1 / 4)
    assert benchmark.probability(math.inf) == 0
    assert math.isnan(benchmark.probability(math.nan))


def test_normalised_probability_by_hand() -> None:
    """p = 1/2 beside 1/4, 1/8 and 1/8: (1/2) / 1. A collapsed model, e^-50 each: 1/4 without eps, 0 with it."""
    log = math.log
    assert benchmark.normalised_probability(log(2), [log(4), log(8), log(8)], eps=0) == pytest.approx(0.5)
    assert benchmark.normalised_probability(50, [50, 50, 50], eps=0) == pytest.approx(0.25)
    assert benchmark.normalised_probability(50, [50, 50, 50]) == pytest.approx(math.exp(-50) / 1e-10, rel=1e-6)
    assert benchmark.normalised_probability(900, [901], eps=0) == pytest.approx(1 / (1 + math.exp(-1)))
    with pytest.raises(ValueError, match="no perturbed answers"):
        benchmark.normalised_probability(1, [])


class TestModelUtility:
    def test_nine_components_by_hand(self) -> None:
        """Reciprocals 1, 2, 4, 5, 8, 10, 1, 2, 4 sum to 37: harmonic mean 9/37."""
        components = [1, 1 / 2, 1 / 4, 1 / 5, 1 / 8, 1 / 10, 1, 1 / 2, 1 / 4]
        assert benchmark.model_utility(components) == pytest.approx(9 / 37)

    def test_degenerate(self) -> None:
        assert benchmark.model_utility([0.5] * 8 + [0.0]) == 0
        assert math.isnan(benchmark.model_utility([0.5] * 8 + [math.nan]))
        assert math.isnan(benchmark.model_utility([0.0] * 8 + [math.nan]))
        with pytest.raises(ValueError, match="negative"):
            benchmark.model_utility([0.5, -0.1])
        with pytest.raises(ValueError, match="no components"):
            benchmark.model_utility([])


class TestText:
    def test_rouge_l_recall_by_hand(self) -> None:
        """Stemmed, «the cats ran home» and «a cat runs home»: cat and home in order, run/ran differ: 2 of 4."""
        assert text.rouge_l_recall("the cats ran home", "a cat runs home") == pytest.approx(2 / 4)
        assert text.rouge_l_recall("one two three", " three two one ") == pytest.approx(1 / 3)
        assert text.rouge_l_recall("one", "") == 0

    def test_empty(self) -> None:
        assert text.is_empty(" \n\t")
        assert not text.is_empty(" . ")

    def test_repetitive(self) -> None:
        assert text.is_repetitive("the same thing again " * 10)
        assert not text.is_repetitive(" ".join(str(number) for number in range(40)))
        assert not text.is_repetitive("no " * 19)
        assert text.is_repetitive("no " * 20)


@pytest.mark.parametrize("name", ["fixed", "as_published"])
class TestAgainstOpenUnlearning:
    """From its per-row losses and generations, our functions give its scores and its aggregates."""

    def log(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((needs("parity") / f"{name}.json").read_text(encoding="utf-8"))
        return content

    def losses(self, log: dict[str, Any], metric: str) -> list[Any]:
        rows = log[metric]["value_by_index"]
        return [rows[index]["avg_loss"] for index in sorted(rows, key=int)]

    def ratios(self, log: dict[str, Any], right: str, wrong: str) -> list[float]:
        return [
            benchmark.truth_ratio(a, b) for a, b in zip(self.losses(log, right), self.losses(log, wrong), strict=True)
        ]

    def test_everything(self, name: str) -> None:
        log = self.log(name)
        aggregates = {
            metric: np.mean([benchmark.probability(x) for x in self.losses(log, metric)])
            for metric in ("forget_Q_A_Prob", "forget_Q_A_PARA_Prob", "retain_Q_A_Prob", "retain_Q_A_PARA_Prob")
        }
        forget = self.ratios(log, "forget_Q_A_PARA_Prob", "forget_Q_A_PERT_Prob")
        scores = log["forget_truth_ratio"]["value_by_index"]
        assert forget == pytest.approx([scores[index]["score"] for index in sorted(scores, key=int)], rel=1e-6)
        aggregates["forget_truth_ratio"] = benchmark.forget_truth_ratio(forget)
        retain = self.ratios(log, "retain_Q_A_PARA_Prob", "retain_Q_A_PERT_Prob")
        aggregates["retain_Truth_Ratio"] = benchmark.utility_truth_ratio(retain)
        for short in ("ra", "wf"):
            right, wrong = f"{short}_Q_A_Prob", f"{short}_Q_A_PERT_Prob"
            aggregates[f"{short}_Truth_Ratio"] = benchmark.utility_truth_ratio(self.ratios(log, right, wrong))
            pairs = zip(self.losses(log, right), self.losses(log, wrong), strict=True)
            normalised = [benchmark.normalised_probability(a, b) for a, b in pairs]
            aggregates[f"{short}_Q_A_Prob_normalised"] = np.mean(normalised)
        for short in ("forget", "retain", "ra", "wf"):
            rows = log[f"{short}_Q_A_ROUGE"]["value_by_index"].values()
            rouge = [text.rouge_l_recall(row["ground_truth"], row["generation"]) for row in rows]
            assert rouge == pytest.approx([row["rougeL_recall"] for row in rows], abs=1e-12)
            aggregates[f"{short}_Q_A_ROUGE"] = np.mean(rouge)
        nine = ["retain_Q_A_Prob", "retain_Q_A_ROUGE", "retain_Truth_Ratio"]
        for short in ("ra", "wf"):
            nine += [f"{short}_Q_A_Prob_normalised", f"{short}_Q_A_ROUGE", f"{short}_Truth_Ratio"]
        aggregates["model_utility"] = benchmark.model_utility([float(aggregates[metric]) for metric in nine])
        for metric, value in aggregates.items():
            assert value == pytest.approx(log[metric]["agg_value"], rel=1e-6), metric
