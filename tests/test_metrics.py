"""The benchmark's metrics: hand-derived cases and degenerate ones."""

import itertools
import json
import math
import sys
from typing import Any

import numpy as np
import pytest

from lm_eval_tofu import tofu
from lm_eval_tofu.metrics import benchmark, text
from lm_eval_tofu.tasks import TASKS_DIR

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


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

    def test_a_p_value_too_small_for_a_float(self) -> None:
        quality = benchmark.forget_quality([float(row) for row in range(1000)], [row + 1e6 for row in range(1000)])
        assert quality[:3] == (0, -math.inf, 1)

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_p_next_to_no_distance(self, steps: int) -> None:
        """Hardly a path of 800 steps stays within 5 of the diagonal: p = 1, where scipy's exact sum rounds above 1."""
        ours = [float(value) for value in range(400)]
        quality = benchmark.forget_quality(ours, [value if value >= steps else value + 1000 for value in ours])
        assert quality.statistic == pytest.approx(steps / 400)
        assert quality.p_value == pytest.approx(1, abs=1e-9)
        assert quality.p_value <= 1

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
        """D = 0, which every path reaches: p = 1."""
        values = list(np.random.default_rng(0).random(400))
        assert benchmark.forget_quality(values, values[::-1]) == (1, 0, 0, 400)
        assert benchmark.forget_quality([0.5] * 9, [0.5] * 9).p_value == 1

    def test_a_model_that_never_forgot(self) -> None:
        """D = 1 at n = 400: two of C(800, 400) paths, p = 1e-239, far below what its four printed decimals show."""
        quality = benchmark.forget_quality([0.1] * 400, [0.9] * 400)
        assert quality.statistic == 1
        assert 0 < quality.p_value < 1e-230
        assert quality.log10_p_value == pytest.approx(math.log10(2) - math.log10(math.comb(800, 400)), abs=1e-6)

    def test_one_row(self) -> None:
        """Two paths, up-right and right-up, and both reach D = 1: p = 1."""
        assert benchmark.forget_quality([1.0], [2.0]) == (1, 0, 1, 1)
        assert benchmark.forget_quality([1.0], [1.0]) == (1, 0, 0, 1)

    def test_paths_counted_one_by_one(self) -> None:
        """n = 5 and every possible D: the share of the C(10, 5) = 252 orders of the joint sample with D or more."""
        orders = list(itertools.combinations(range(10), 5))

        def distance(first: tuple[int, ...]) -> float:
            place = difference = largest = 0
            for place in range(10):
                difference += 1 if place in first else -1
                largest = max(largest, abs(difference))
            return largest / 5

        distances = [distance(order) for order in orders]
        for steps in range(1, 6):
            order = orders[distances.index(steps / 5)]
            others = [place for place in range(10) if place not in order]
            quality = benchmark.forget_quality([float(place) for place in order], [float(place) for place in others])
            assert quality.statistic == pytest.approx(steps / 5)
            assert quality.p_value == pytest.approx(sum(d >= steps / 5 for d in distances) / 252)

    def test_the_order_of_rows_does_not_matter(self) -> None:
        generator = np.random.default_rng(1)
        ours, theirs = generator.lognormal(size=40), generator.lognormal(0.4, size=40)
        quality = benchmark.forget_quality(list(ours), list(theirs))
        assert 0 < quality.p_value < 1
        order = generator.permutation(40)
        assert benchmark.forget_quality(list(ours[order]), list(theirs[order])) == quality
        assert benchmark.forget_quality(list(ours[order]), list(theirs)) == quality
        swapped = benchmark.forget_quality(list(theirs), list(ours))
        assert (swapped.p_value, swapped.statistic) == (quality.p_value, quality.statistic)

    def test_infinite_ratios_are_the_largest(self) -> None:
        assert benchmark.forget_quality([math.inf, 1.0], [math.inf, 1.0]).statistic == 0
        assert benchmark.forget_quality([math.inf, 1.0], [1e300, 1.0]).statistic == 0.5

    @pytest.mark.parametrize("pair", [([math.nan, 1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0, math.nan])])
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

    def test_paraphrase_and_five_perturbed_by_hand(self) -> None:
        """True 2.0; false 1, 2, 3, 4, 5, mean 3: R = exp(-3) / exp(-2) = 1/e, not the mean of the probabilities."""
        assert benchmark.truth_ratio(2.0, [1, 2, 3, 4, 5], eps=0) == pytest.approx(1 / math.e, rel=1e-14)

    def test_eps_matters_for_collapsed_models_only(self) -> None:
        """exp(-50) = 1.9e-22 and exp(-500) = 7e-218 are nothing beside eps = 1e-10, which then is the denominator.

        Equal losses of 50 nats: R = exp(-50) / 1e-10 = 1.9e-12 instead of 1; of 500 nats: 7e-218 / 1e-10 = 7e-208. So a
        model that has lost its language reads as one that prefers the truth. With false answers at 2 nats:
        R = exp(-2) / 1e-10 = 1.35e9, instead of exp(48) = 7e20. At 2 and 3 nats eps moves R by less than 1e-9.
        """
        assert benchmark.truth_ratio(2.0, [3.0]) == pytest.approx(math.exp(-1), rel=1e-8)
        assert benchmark.truth_ratio(2.0, [3.0]) < benchmark.truth_ratio(2.0, [3.0], eps=0)
        assert benchmark.truth_ratio(50.0, [50.0]) == pytest.approx(math.exp(-50) / 1e-10, rel=1e-6)
        assert benchmark.truth_ratio(500.0, [500.0] * 5) == pytest.approx(math.exp(-500) * 1e10, rel=1e-9)
        assert benchmark.truth_ratio(50.0, [2.0]) == pytest.approx(math.exp(-2) * 1e10, rel=1e-9)
        assert benchmark.truth_ratio(50.0, [2.0], eps=0) == pytest.approx(math.exp(48))
        for loss in (50.0, 500.0, 5000.0):
            assert benchmark.truth_ratio(loss, [loss], eps=0) == pytest.approx(1)

    def test_infinite_losses(self) -> None:
        """A probability of 0: R is 0 where the false answers have it, (1/e) / eps where the true one has it."""
        assert benchmark.truth_ratio(1.0, [math.inf, 2.0]) == 0
        assert benchmark.truth_ratio(math.inf, [1.0]) == pytest.approx(1e10 / math.e)
        assert benchmark.truth_ratio(math.inf, [1.0], eps=0) == sys.float_info.max
        assert math.isnan(benchmark.truth_ratio(math.inf, [math.inf], eps=0))

    def test_extremes(self) -> None:
        assert benchmark.truth_ratio(2000.0, [1.0], eps=0) == sys.float_info.max
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
        assert benchmark.utility_truth_ratio([0.0, math.inf]) == 0.5
        assert math.isnan(benchmark.forget_truth_ratio([1, math.nan]))
        assert math.isnan(benchmark.utility_truth_ratio([1, math.nan]))
        for aggregate in (benchmark.forget_truth_ratio, benchmark.utility_truth_ratio):
            with pytest.raises(ValueError, match="no truth ratios"):
                aggregate([])


def test_probability_by_hand() -> None:
    """Tokens of probability 1/2 and 1/8: loss (ln 2 + ln 8) / 2 = ln 4, probability 1/4."""
    assert benchmark.probability((math.log(2) + math.log(8)) / 2) == pytest.approx(1 / 4)
    assert benchmark.probability(0.0) == 1
    assert benchmark.probability(math.inf) == 0
    assert math.isnan(benchmark.probability(math.nan))


def test_normalised_probability_by_hand() -> None:
    """p = 1/2 beside 1/4, 1/8 and 1/8: (1/2) / 1. With p = 1/8 beside 1/8 and 1/4: (1/8) / (1/2) = 1/4.

    With eps = 1/2 in the denominator the first is (1/2) / (3/2). A collapsed model, exp(-50) each: 1/4 without eps;
    with it exp(-50) / 1e-10 = 1.9e-12.
    """
    log = math.log
    assert benchmark.normalised_probability(log(2), [log(4), log(8), log(8)], eps=0) == pytest.approx(0.5)
    assert benchmark.normalised_probability(log(8), [log(8), log(4)], eps=0) == pytest.approx(0.25)
    assert benchmark.normalised_probability(log(2), [log(4), log(8), log(8)], eps=0.5) == pytest.approx(1 / 3)
    assert benchmark.normalised_probability(log(2), [log(4), log(8), log(8)]) == pytest.approx(0.5, rel=1e-9)
    assert benchmark.normalised_probability(50, [50, 50, 50], eps=0) == pytest.approx(0.25)
    assert benchmark.normalised_probability(50, [50, 50, 50]) == pytest.approx(math.exp(-50) / 1e-10, rel=1e-6)
    assert benchmark.normalised_probability(900, [901], eps=0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert benchmark.normalised_probability(math.inf, [1.0]) == 0
    assert benchmark.normalised_probability(1.0, [math.inf], eps=0) == 1
    assert math.isnan(benchmark.normalised_probability(math.nan, [1.0]))
    assert math.isnan(benchmark.normalised_probability(1.0, [2.0, math.nan]))
    with pytest.raises(ValueError, match="no perturbed answers"):
        benchmark.normalised_probability(1, [])


class TestProbMean:
    def test_by_hand(self) -> None:
        """c = 1/4, w = sqrt(1/2 x 1/8) = 1/4: as likely as each other. c = 1/2, w = 1/8: 4/5."""
        log = math.log
        assert benchmark.prob_mean(log(4), [log(2), log(8)], eps=0) == pytest.approx(0.5)
        assert benchmark.prob_mean(log(2), [log(8)], eps=0) == pytest.approx(0.8)

    def test_it_is_no_truth_ratio(self) -> None:
        """Without eps, 1 / (1 + R): what one calls better the other calls worse."""
        for loss, perturbed in ((0.5, [2.0, 3.0]), (3.0, [0.1]), (60.0, [61.0])):
            ratio = benchmark.truth_ratio(loss, perturbed, eps=0)
            assert benchmark.prob_mean(loss, perturbed, eps=0) == pytest.approx(1 / (1 + ratio))

    def test_the_formula_of_open_unlearning(self) -> None:
        for loss, perturbed in ((1.0, [2.0, 1.5]), (22.0, [23.0]), (200.0, [1.0]), (1.0, [200.0])):
            correct, wrong = math.exp(-loss), math.exp(-np.mean(perturbed))
            assert benchmark.prob_mean(loss, perturbed) == pytest.approx(correct / (correct + wrong + 1e-10))

    def test_degenerate_input(self) -> None:
        assert benchmark.prob_mean(math.inf, [1.0]) == 0
        assert benchmark.prob_mean(1.0, [math.inf]) == pytest.approx(1)
        assert benchmark.prob_mean(2000.0, [2000.0], eps=0) == pytest.approx(0.5)
        assert math.isnan(benchmark.prob_mean(math.nan, [1.0]))
        assert math.isnan(benchmark.prob_mean(math.inf, [math.inf], eps=0))
        with pytest.raises(ValueError, match="no perturbed answers"):
            benchmark.prob_mean(1.0, [])


class TestModelUtility:
    def test_nine_components_by_hand(self) -> None:
        """Reciprocals 1, 2, 4, 5, 8, 10, 1, 2, 4 sum to 37: harmonic mean 9/37."""
        components = [1, 1 / 2, 1 / 4, 1 / 5, 1 / 8, 1 / 10, 1, 1 / 2, 1 / 4]
        assert benchmark.model_utility(components) == pytest.approx(9 / 37)
        assert benchmark.model_utility(components[::-1]) == pytest.approx(9 / 37)
        assert benchmark.model_utility([0.3] * 9) == pytest.approx(0.3)

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
        """Stemmed, 'the cats ran home' and 'a cat runs home': cat and home in order, run/ran differ: 2 of 4.

        'writing novels quickly' is 'write novel quickli', which 'she writes a novel' holds 2 of 3 words of. Case and
        punctuation do not count. What the generation says beyond the answer costs nothing.
        """
        assert text.rouge_l_recall("the cats ran home", "a cat runs home") == pytest.approx(2 / 4)
        assert text.rouge_l_recall("writing novels quickly", "she writes a novel") == pytest.approx(2 / 3)
        assert text.rouge_l_recall("Oslo, Norway.", "It was in OSLO (norway), I think") == 1
        assert text.rouge_l_recall("one two three", " three two one ") == pytest.approx(1 / 3)
        assert text.rouge_l_recall("one", "") == 0
        assert text.rouge_l_recall("one", "…") == 0

    def test_empty(self) -> None:
        assert text.is_empty("")
        assert text.is_empty(" \n\t")
        assert not text.is_empty(" . ")

    @pytest.mark.parametrize(
        "generation",
        [
            "the same thing again " * 10,
            "The same THING again\n" * 10,
            "I do not know. " * 5,
            "no " * 20,
            "!" * 200,
            "always" * 40,
            "\u5929" * 100,
            "\u200b" * 200,
            "\ud83d" * 200,  # half a character
            "The author was born in Oslo and writes about trains" + "!" * 200,
        ],
        ids=ascii,
    )
    def test_repetitive(self, generation: str) -> None:
        assert text.is_repetitive(generation)

    @pytest.mark.parametrize(
        "generation",
        [
            "",
            "Ha ha ha!",
            "I do not know. I do not know.",
            " ".join(str(number) for number in range(40)),
            "| Question | Answer |\n|" + "-" * 40 + "|" + "-" * 60 + "|\n"
            "| What genre does Jaime write in?"
            + " " * 60
            + "| Jaime Vasquez writes true crime and lives in Santiago."
            + " " * 60,
            json.dumps({"question": "What does Jaime write?", "answer": "True crime", "author": {"born": "Santiago"}}),
        ],
        ids=ascii,
    )
    def test_not_repetitive(self, generation: str) -> None:
        assert not text.is_repetitive(generation)

    @pytest.mark.parametrize(("copies", "expected"), [(1, False), (3, True)])
    def test_copies_of_an_answer(self, copies: int, expected: bool) -> None:
        """Answers of TOFU compress to three fifths of their bytes at best: one and a half copies are none too many."""
        for row in tofu.load("forget10", tofu.resolve_source("mini")):
            if len(row["answer"]) > 60:
                assert text.is_repetitive(" ".join([row["answer"]] * copies)) is expected


def leaves() -> list[str]:
    """The tasks' files, without those of groups."""
    return sorted(path.stem for path in TASKS_DIR.glob("*.yaml") if not path.read_text().startswith("group:"))


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    return load_tasks()


def load_tasks(**model_args: Any) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    metadata = {"tofu": "mini", "forget_split": "forget01", **model_args}
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
    loaded: dict[str, Any] = manager.load(leaves())["tasks"]
    return loaded


@pytest.mark.parametrize("unfinished", [math.nan, 0.0])
def test_every_metric_of_a_document_has_an_aggregation_of_ours(tasks: dict[str, Any], unfinished: float) -> None:
    """What `metric_list` lacks or names otherwise, lm-eval averages without a word (lm-evaluation-harness 3314)."""
    from lm_eval_tofu.tasks import reported
    from lm_eval_tofu.tasks.generations import Generation
    from lm_eval_tofu.tasks.hooks import Scored

    if not math.isnan(unfinished):
        tasks = load_tasks(think_end_token="</think>")
    assert {"tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob"} <= set(tasks)
    assert sorted(tasks) == leaves()
    for name, task in tasks.items():
        aggregations = task.aggregation()
        for doc in {doc["set"]: doc for doc in task.eval_docs}.values():
            losses = {c: [1.0] * len(doc[c]) if isinstance(doc[c], list) else 1.0 for c in task.scored}
            generations = [Generation(text, 0.0, unfinished) for text in ("Oslo", "Rome")] if task.generate else []
            scored = Scored(name, task.VERSION, task.options, losses, generations, None)
            record = task.build_record(doc, scored).to_json()
            assert next(iter(aggregations)) == reported.TASKS[name]
            values = {metric.name: metric.value(record) for metric in task.metrics}
            assert set(values) == set(aggregations) == set(task.higher_is_better()), name
        for metric in task.metrics:
            kinds = reported.Statistic | reported.Function
            assert isinstance(metric.aggregate, kinds), f"{name}: {metric.name} is aggregated by {metric.aggregate}"
