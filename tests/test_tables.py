"""The report's tables from arms made in memory, each figure with a value of its own."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import made_tables
import pytest

from lm_eval_tofu import tofu
from lm_eval_tofu.metrics import benchmark, inference, permutation
from lm_eval_tofu.report import formatting, tables
from lm_eval_tofu.report.arms import Arm, Results, Sample, TaskRun, ToolRun
from lm_eval_tofu.report.probes import Curve
from lm_eval_tofu.report.tables import Measured, Row, Tables
from lm_eval_tofu.whitebox import PROBE, RELEARN

NAN = math.nan
INDICES = [20 * author + row for author in range(6) for row in (0, 1)]
"""Two rows of each of six authors."""
AUTHORS = [index // 20 for index in INDICES]


def run(task: str, records: list[Mapping[str, Any]] | None = None, **given: Any) -> TaskRun:
    """A task's run: with these records as samples, or without any."""
    samples = None
    if records is not None:
        samples = {
            (str(record.get("set", "forget")), int(record["index"]), str(record.get("family", ""))): Sample(
                record, f"Question {record['index']}?", "Answer.", [], "", None
            )
            for record in records
        }
    return made_tables.run(task, samples=samples, **given)


def built(**arms: Mapping[str, Any]) -> Tables:
    """Tables of arms: by name, their `runs` as a list, `probe` and `relearn`."""
    made = []
    for name, parts in arms.items():
        runs = {each.task: each for each in parts.get("runs", [])}
        tools = {}
        if "probe" in parts:
            tools[PROBE] = ToolRun(parts["probe"]["metrics"], parts["probe"])
        if "relearn" in parts:
            tools[RELEARN] = ToolRun(parts["relearn"])
        made.append(Arm(name, Path(name), runs, tools))
    return tables.build(Results(made, "forget10", []))


def row(content: Tables, key: str) -> Row:
    [found] = [each for each in (*content.main, *content.parts) if each.key == key]
    return found


def cell(content: Tables, key: str, arm: str = "unlearned") -> Measured:
    found = row(content, key).cells[arm]
    assert found is not None
    return found


def leaks(task: str, leaked: Callable[[int], Any], **given: Any) -> TaskRun:
    """A leak audit in one family, about specific rows: what `leaked` says of each."""
    records = [
        {"index": index, "family": "direct", "tier": "specific", "leaked": leaked(index), **given} for index in INDICES
    ]
    return run(task, records)


def has(found: Measured, *expected: float) -> bool:
    """Whether value, limits and the excess with its limits are these; a missing one is NaN."""
    wanted = (*expected, *[NAN] * (6 - len(expected)))
    return found[:6] == pytest.approx(wanted, nan_ok=True)


RECORDED = {
    "tofu_forget_quality": {
        "forget_quality": 0.41,
        "ks_statistic": 0.12,
        "truth_ratio": 0.61,
        "probability": 0.62,
        "rougeL_recall": 0.63,
        "generations_empty": 0.04,
        "generations_repetitive": 0.05,
        "generations_cut": 0.06,
    },
    "tofu_model_utility": {
        "model_utility": 0.52,
        **{
            f"{name}_{part}": 0.7 + number / 100
            for number, (name, part) in enumerate(
                (name, part)
                for name in ("retain", "real_authors", "world_facts")
                for part in ("probability", "rougeL_recall", "truth_ratio")
            )
        },
    },
    "tofu_novel_recall": {"leak_rate": 0.21, "leak_rate_low": 0.11, "leak_rate_high": 0.31, "leak_rate_cloze": 0.26},
    "tofu_format_shift": {"leak_rate": 0.22, "leak_rate_low": 0.12, "leak_rate_high": 0.32, "leak_rate_json": 0.27},
    "tofu_best_of_n": {"prompt_leak": 0.23, "prompt_leak_low": 0.13, "prompt_leak_high": 0.33, "leak_rate": 0.9},
    "tofu_chain_of_clues": {"leak_rate": 0.24, "leak_rate_low": 0.14, "leak_rate_high": 0.34},
    "tofu_recognition": {"recognition": 0.25, "recognition_low": 0.15, "recognition_high": 0.35, "n": 77.0},
    "tofu_answer_logprob": {"answer_logprob": -1.9, "answer_logprob_shift": -0.63},
}


@pytest.fixture(scope="module")
def content() -> Tables:
    """Two arms without samples."""
    runs = [
        run(task, metrics=metrics, documents=100 + number, of=100 + number)
        for number, (task, metrics) in enumerate(RECORDED.items())
    ]
    base = [run(task, metrics={name: value / 2 for name, value in RECORDED[task].items()}) for task in RECORDED]
    return built(retain={"runs": base}, unlearned={"runs": runs})


class TestWithoutSamples:
    """Results without a samples file: the figures that lm-eval aggregated."""

    def test_every_row_has_its_own_figure(self, content: Tables) -> None:
        assert has(cell(content, "forget_quality"), 0.41)
        assert has(cell(content, "ks_statistic"), 0.12)
        assert has(cell(content, "model_utility"), 0.52)
        assert has(cell(content, "novel_recall"), 0.21, 0.11, 0.31, 0.105)
        assert has(cell(content, "format_shift"), 0.22, 0.12, 0.32, 0.11)
        assert has(cell(content, "best_of_n"), 0.23, 0.13, 0.33, 0.115)
        assert has(cell(content, "chain_of_clues"), 0.24, 0.14, 0.34, 0.12)
        assert has(cell(content, "recognition"), 0.25, 0.15, 0.35, 0.125)
        assert has(cell(content, "logprob_shift"), -0.63)
        assert row(content, "forget_quality").cells["retain"] is None
        assert has(cell(content, "novel_recall", "retain"), 0.105, 0.055, 0.155)

    def test_every_part_has_its_own_figure_and_unit(self, content: Tables) -> None:
        for task in ("tofu_forget_quality", "tofu_model_utility"):
            for name, value in RECORDED[task].items():
                if name not in ("forget_quality", "ks_statistic", "model_utility"):
                    assert has(cell(content, f"{task}_{name}"), value)
                    assert has(cell(content, f"{task}_{name}", "retain"), value / 2)
                    assert row(content, f"{task}_{name}").unit == ("share" if "generations" in name else "number")
        assert len(content.parts) == 15

    def test_n_is_what_the_results_state(self, content: Tables) -> None:
        expected = {"forget_quality": 100, "ks_statistic": 100, "model_utility": 101, "recognition": None}
        expected |= {"logprob_shift": 107, "novel_recall": None, "tofu_forget_quality_truth_ratio": 100}
        assert {key: row(content, key).n for key in expected} == expected
        alone = built(unlearned={"runs": [run("tofu_recognition", metrics=RECORDED["tofu_recognition"])]})
        assert row(alone, "recognition").n == 77
        other = run("tofu_novel_recall", metrics={"leak_rate": 0.5, "n": 88.0})
        assert row(built(unlearned={"runs": [other]}), "novel_recall").n is None  # of all answers, not of the specific

    def test_families(self, content: Tables) -> None:
        assert content.by_family == {
            "tofu_novel_recall": {"cloze": {"retain": Measured(0.13), "unlearned": Measured(0.26)}},
            "tofu_format_shift": {"json": {"retain": Measured(0.135), "unlearned": Measured(0.27)}},
        }

    def test_nothing_is_made_up(self, content: Tables) -> None:
        assert content.authors == 0
        assert (content.ratios, content.leak_at_k, content.turns, content.shuffled) == ({}, {}, {}, {})
        bare = built(unlearned={"runs": [run(task) for task in RECORDED]})
        assert all(math.isnan(each.cells["unlearned"].value) for each in bare.main if each.cells["unlearned"])
        assert all(each.cells["unlearned"] is None for each in bare.parts)

    def test_what_is_missing_is_said(self, content: Tables) -> None:
        assert content.missing == [
            "Masked probe, last layer: not evaluated on any arm (lm-eval-tofu probe).",
            "Relearning, recovery: not evaluated on any arm (lm-eval-tofu relearn).",
            "No samples of retain, unlearned: evaluate with --log_samples for intervals, distributions and leaks.",
        ]
        some = built(
            full={"runs": [run("tofu_novel_recall", [])]},
            retain={"runs": [run("tofu_model_utility", [])]},
            unlearned={"relearn": {"recovery_delta": 1.0}},
        )
        assert some.missing[:2] == [
            "Forget quality: not evaluated on any arm (tofu_forget_quality).",
            "Model utility: not evaluated on full, unlearned (tofu_model_utility).",
        ]
        assert "Novel-recall leak: not evaluated on retain, unlearned (tofu_novel_recall)." in some.missing
        assert "Answer log-likelihood shift: not evaluated on any arm (tofu_answer_logprob)." in some.missing
        assert not [note for note in some.missing if note.startswith(("Relearning", "No samples", "KS distance"))]


def test_rows_their_units_and_whether_more_of_them_is_a_leak() -> None:
    content = built(unlearned={})
    audits = ["novel_recall", "format_shift", "best_of_n", "chain_of_clues", "recognition", "probe"]
    units = {"forget_quality": "p", "ks_statistic": "number", "forget_quality_paired": "p", "model_utility": "number"}
    units |= {**dict.fromkeys(audits, "share"), "logprob_shift": "nats", "relearn": "points"}
    assert {each.key: each.unit for each in content.main} == units
    assert [each.key for each in content.main] == list(units)
    assert [each.key for each in content.main if each.leak] == [*audits, "relearn"]
    assert all(each.label and each.help and each.label[0].isupper() for each in (*content.main, *content.parts))


class TestFromSamples:
    """Samples of two arms; what is computed of them is `lm_eval_tofu.metrics`' own."""

    def test_rates_with_their_excess_on_the_same_rows(self) -> None:
        ours, theirs = [float(index % 20 == 0) for index in INDICES], [float(index == 21) for index in INDICES]
        content = built(
            retain={"runs": [leaks("tofu_novel_recall", lambda index: index == 21)]},
            unlearned={"runs": [leaks("tofu_novel_recall", lambda index: 3 * (index % 20 == 0))]},
        )
        found, own, excess = (
            cell(content, "novel_recall"),
            inference.rate(ours, AUTHORS),
            inference.excess(ours, theirs, AUTHORS),
        )
        assert has(found, *own[:3], *excess[:3])
        assert (found.excess_error, found.p_value, found.authors) == (excess.error, excess.p_value, 6)
        retain = inference.rate(theirs, AUTHORS)
        assert has(cell(content, "novel_recall", "retain"), *retain[:3])
        assert row(content, "novel_recall").n == 12
        assert content.authors == 6

    def test_only_specific_rows_count(self) -> None:
        audit = leaks("tofu_novel_recall", lambda index: True)
        records = [{**record, "tier": "gist" if record["index"] < 40 else "specific"} for record in audit.records]
        records = [{**record, "leaked": record["index"] < 60} for record in records]
        content = built(unlearned={"runs": [run("tofu_novel_recall", records, metrics={"leak_rate_direct": 0.9})]})
        assert cell(content, "novel_recall").value == 2 / 8
        assert content.by_family["tofu_novel_recall"]["direct"]["unlearned"].value == 2 / 8
        assert row(content, "novel_recall").n == 8

    def test_families_apart(self) -> None:
        records = [
            {"index": index, "family": family, "tier": "specific", "leaked": family == "cloze" and index < 60}
            for index in INDICES
            for family in ("direct", "cloze")
        ]
        metrics = {"leak_rate_direct": 0.9, "leak_rate_cloze": 0.9, "leak_rate_json": 0.9}
        content = built(unlearned={"runs": [run("tofu_format_shift", records, metrics=metrics)]})
        found = content.by_family["tofu_format_shift"]
        assert {family: cells["unlearned"].value for family, cells in found.items()} == {"direct": 0, "cloze": 0.5}
        estimate = inference.rate([float(index < 60) for index in INDICES], AUTHORS)
        assert has(found["cloze"]["unlearned"], *estimate[:3])

    def test_recognition_counts_right_choices(self) -> None:
        records = [{"index": index, "correct": index == 0} for index in INDICES]
        content = built(unlearned={"runs": [run("tofu_recognition", records)]})
        assert cell(content, "recognition").value == pytest.approx(1 / 12)
        assert row(content, "recognition").n == 12

    def test_chain_of_clues(self) -> None:
        """Rows count that are specific behind every number of clues; behind k clues, rows below 20 k leak."""
        families = [*(f"clues_{number}" for number in range(5)), "shuffled"]
        records = [
            {
                "index": index,
                "family": family,
                "tier": "gist" if family == "clues_2" and index == 0 else "specific",
                "leaked": index == 100 if family == "shuffled" else index < 20 * int(family[-1]),
            }
            for index in INDICES
            for family in families
        ]
        content = built(unlearned={"runs": [run("tofu_chain_of_clues", records)]})
        curve = content.turns["unlearned"]
        assert curve.x == [0, 1, 2, 3, 4]
        assert curve.y == pytest.approx([0, 1 / 11, 3 / 11, 5 / 11, 7 / 11])
        assert cell(content, "chain_of_clues").value == pytest.approx(7 / 11)
        last = inference.rate([float(index < 80) for index in INDICES[1:]], AUTHORS[1:])
        assert (curve.low[-1], curve.high[-1]) == pytest.approx((last.low, last.high))
        assert content.shuffled["unlearned"].value == pytest.approx(1 / 11)

    def test_best_of_n(self) -> None:
        """Four of six samples of one row leak, one of those of another: leak@1 is 5/72, and leak@6 is 2/12."""
        counts = {0: 4, 21: 1}
        audit = leaks("tofu_best_of_n", lambda index: counts.get(index, 0), n=6)
        content = built(unlearned={"runs": [audit]})
        curve = content.leak_at_k["unlearned"]
        assert curve.x == [1, 2, 4, 6]
        at = {1: (4 / 6, 1 / 6), 2: (1 - 1 / 15, 5 / 15), 4: (1, 10 / 15), 6: (1, 1)}
        assert curve.y == pytest.approx([sum(pair) / 12 for pair in at.values()])
        second = inference.rate([{0: at[2][0], 21: at[2][1]}.get(index, 0.0) for index in INDICES], AUTHORS)
        assert (curve.low[1], curve.high[1]) == pytest.approx((second.low, second.high))
        assert cell(content, "best_of_n").value == pytest.approx(2 / 12)
        assert row(content, "best_of_n").label == "Best-of-6 leak"
        gist = [{**record, "tier": "gist"} for record in audit.records]
        assert built(unlearned={"runs": [run("tofu_best_of_n", gist)]}).leak_at_k["unlearned"] == Curve([], [], [], [])

    def test_arms_with_other_numbers_of_samples_have_no_number_in_common(self) -> None:
        arms = {name: {"runs": [leaks("tofu_best_of_n", lambda index: 0, n=n)]} for name, n in (("a", 4), ("b", 8))}
        assert row(built(**arms), "best_of_n").label == "Best-of-N leak"

    @pytest.mark.parametrize("beside", [True, False], ids=["retain arm in the report", "reference of the run"])
    def test_forget_quality(self, beside: bool) -> None:
        ours, theirs = ([value / 7 + shift for value in range(12)] for shift in (0.0, 0.9))
        records = [
            {"index": index, "truth_ratio": ratio, "retain_truth_ratio": 5.0 if beside else other}
            for index, ratio, other in zip(INDICES, ours, theirs, strict=True)
        ]
        reference = [{"index": index, "truth_ratio": other} for index, other in zip(INDICES, theirs, strict=True)]
        arms = {"unlearned": {"runs": [run("tofu_forget_quality", records)]}}
        if beside:
            arms = {"retain": {"runs": [run("tofu_forget_quality", reference)]}, **arms}
        content = built(**arms)
        test = benchmark.forget_quality(ours, theirs)
        assert has(cell(content, "forget_quality"), test.p_value)
        assert has(cell(content, "ks_statistic"), test.statistic)
        paired = permutation.ks_test(ours, theirs, AUTHORS)
        assert has(cell(content, "forget_quality_paired"), paired.p_value)
        assert content.ratios["unlearned"] == ours

    def test_utility_has_limits_over_retain_authors_and_other_rows(self) -> None:
        def value(name: str, part: str, place: int) -> float:
            return 0.3 + 0.01 * place + 0.05 * len(part) / 10 + 0.1 * len(name) / 12

        records = [
            {
                "set": name,
                "index": index,
                "probability": value(name, "probability", place),
                "rougeL_recall": value(name, "rougeL_recall", place),
                "truth_ratio": 1.2 if place == 3 else value(name, "truth_ratio", place),
            }
            for name in tofu.UTILITY_SETS
            for place, index in enumerate(INDICES)
        ]
        audit = run("tofu_model_utility", records, metrics={"model_utility": 0.47})
        content = built(full={"runs": [audit]})
        strata = []
        for name in tofu.UTILITY_SETS:
            own = [record for record in records if record["set"] == name]
            values = [[record["probability"] for record in own], [record["rougeL_recall"] for record in own]]
            values.append([max(0.0, 1 - record["truth_ratio"]) for record in own])
            strata.append(inference.Stratum(values, AUTHORS if name == "retain" else INDICES))
        expected = inference.harmonic_mean(strata)
        assert has(cell(content, "model_utility", "full"), 0.47, expected.low, expected.high)
        assert row(content, "tofu_model_utility_real_authors_probability").n == 12
        part = [record for record in records if record["set"] != "world_facts"]
        without = built(full={"runs": [run("tofu_model_utility", part, metrics={"model_utility": 0.47})]})
        assert has(cell(without, "model_utility", "full"), 0.47)

    @pytest.mark.parametrize("beside", [True, False], ids=["full arm in the report", "reference of the run"])
    def test_shift_of_the_answers(self, beside: bool) -> None:
        values = {"full": -1.0, "retain": -3.0, "unlearned": -2.0}
        noise = [0.1 * (place % 5) for place in range(12)]
        runs = {
            arm: run(
                "tofu_answer_logprob",
                [
                    {
                        "index": index,
                        "answer_logprob": value - (noise[place] if arm == "unlearned" else 0.0),
                        "full_answer_logprob": 9.0 if beside else values["full"],
                    }
                    for place, index in enumerate(INDICES)
                ],
            )
            for arm, value in values.items()
        }
        content = built(**{arm: {"runs": [each]} for arm, each in runs.items() if beside or arm != "full"})
        shift = inference.mean([-1 - each for each in noise], AUTHORS)
        excess = inference.mean([1 - each for each in noise], AUTHORS)
        assert has(cell(content, "logprob_shift"), *shift[:3], *excess[:3])
        assert cell(content, "logprob_shift", "retain").value == -2
        assert row(content, "logprob_shift").cells.get("full") is None

    def test_the_verdicts_p_values_are_corrected_for_the_arms_audits(self) -> None:
        audits = ("tofu_novel_recall", "tofu_format_shift")
        content = built(
            retain={"runs": [leaks(task, lambda index: index == 0) for task in audits]},
            unlearned={
                "runs": [
                    leaks("tofu_novel_recall", lambda index: index % 20 == 0),
                    leaks("tofu_format_shift", lambda index: index < 40),
                ],
                "relearn": {
                    "recovery_delta": 8.0,
                    "excess": 6.0,
                    "excess_error": 2.0,
                    "excess_p_value": 0.01,
                    "authors": 6,
                    "n": 40,
                },
            },
        )
        keys = ("novel_recall", "format_shift", "relearn")
        found = [cell(content, key) for key in keys]
        assert [each.adjusted for each in found] == inference.holm([each.p_value for each in found])
        novel, _, relearn = found
        baseline = novel.value - novel.excess
        size = inference.detectable_excess(baseline, 6, 12, tests=3, error=novel.excess_error)
        assert novel.detectable == size
        assert relearn.detectable == 100 * inference.detectable_excess(0.0, 6, 40, tests=3, error=0.02)
        assert math.isnan(cell(content, "novel_recall", "retain").adjusted)
        assert [each.key for each, _ in tables.tested(content.main, "unlearned")] == list(keys)


def layers(*points: tuple[float, ...]) -> dict[str, Any]:
    names = ("layer", "top1", "low", "high")
    return {"layers": [dict(zip(names, point, strict=True)) for point in points], "depth": 16}


class TestProbe:
    PROBE: Mapping[str, Any] = {
        "chance": 0.17,
        "metrics": {
            "top1": 0.62,
            "top1_low": 0.52,
            "top1_high": 0.72,
            "top1_excess": 0.33,
            "top1_excess_low": 0.23,
            "top1_excess_high": 0.43,
            "top1_excess_error": 0.05,
            "top1_excess_p_value": 0.002,
            "authors": 6.0,
            "n": 33.0,
        },
        "arms": {
            "model": layers((0, 0.2, 0.1, 0.31), (8, 0.4, 0.3, 0.51), (16, 0.6, 0.5, 0.71)),
            "retain": layers((0, 0.21, 0.11, 0.32), (8, 0.25, 0.15, 0.36), (16, 0.29, 0.19, 0.41)),
            "full": layers((0, 0.22, 0.12, 0.33), (8, 0.5, 0.4, 0.61), (16, 0.9, 0.8, 0.97)),
        },
        "controls": {
            "candidates_only": layers((0, 0.18, 0.08, 0.28)),
            "shuffled_labels": {"model": layers((0, 0.16, 0.06, 0.26)), "retain": layers((0, 0.15, 0.05, 0.25))},
        },
    }

    def test_curves(self) -> None:
        content = built(full={}, retain={}, mine={"probe": self.PROBE})
        assert content.chance == 0.17
        assert content.probe == {
            "mine": Curve([0, 8, 16], [0.2, 0.4, 0.6], [0.1, 0.3, 0.5], [0.31, 0.51, 0.71]),
            "retain": Curve([0, 8, 16], [0.21, 0.25, 0.29], [0.11, 0.15, 0.19], [0.32, 0.36, 0.41]),
            "full": Curve([0, 8, 16], [0.22, 0.5, 0.9], [0.12, 0.4, 0.8], [0.33, 0.61, 0.97]),
            "control: candidates only": Curve([0], [0.18], [0.08], [0.28]),
            "control: shuffled labels": Curve([0], [0.16], [0.06], [0.26]),
        }

    def test_cells(self) -> None:
        """The audited arm's figures are those that its probe states, the others' those of the last layer."""
        content = built(full={}, retain={}, mine={"probe": self.PROBE}, other={})
        found = cell(content, "probe", "mine")
        assert has(found, 0.62, 0.52, 0.72, 0.33, 0.23, 0.43)
        assert (found.excess_error, found.p_value, found.authors) == (0.05, 0.002, 6)
        assert has(cell(content, "probe", "full"), 0.9, 0.8, 0.97, 0.61)
        assert has(cell(content, "probe", "retain"), 0.29, 0.19, 0.41)
        assert row(content, "probe").cells["other"] is None
        assert row(content, "probe").n == 33
        assert row(content, "probe").label == "Masked probe, last layer"

    def test_without_stated_figures_the_last_layers_count(self) -> None:
        content = built(retain={}, mine={"probe": {**self.PROBE, "metrics": {}}})
        assert has(cell(content, "probe", "mine"), 0.6, 0.5, 0.71, 0.31)

    def test_what_is_not_stated_is_a_gap(self) -> None:
        points = [{"layer": 1, "top1": 0.2}, {"layer": 2, "nothing": 1}, {"layer": 7, "top1": 0.4}]
        content = built(mine={"probe": {"metrics": {}, "arms": {"model": {"layers": points}}}})
        assert content.probe["mine"].x == [1, 7]
        assert content.probe["mine"].y == [0.2, 0.4]
        assert all(map(math.isnan, content.probe["mine"].low))
        assert math.isnan(content.chance)

    def test_an_arms_own_probe_goes_before_anothers(self) -> None:
        theirs = {
            "metrics": {"top1": 0.5},
            "arms": {"mine": layers((3, 0.11, 0.1, 0.12)), "model": layers((9, 0.5, 0.4, 0.6))},
        }
        content = built(other={"probe": theirs}, mine={"probe": self.PROBE})
        assert cell(content, "probe", "mine").value == 0.62
        assert content.probe["mine"].x == [0, 8, 16]
        assert content.probe["other"].x == [9]
        assert content.chance == 0.17
        assert row(content, "probe").label == "Masked probe, last layer that was read"


def test_relearning_of_both_arms() -> None:
    ends = ("_low", "_high")
    figures = {"recovery_delta": 7.6, "excess": 6.8, "retain_recovery_delta": 0.8}
    figures |= {
        f"{name}{end}": value + (-1.5, 2.5)[number]
        for name, value in figures.items()
        for number, end in enumerate(ends)
    }
    figures |= {"excess_error": 1.25, "excess_p_value": 0.003, "authors": 6.0, "n": 44.0}
    content = built(retain={}, unlearned={"relearn": figures}, other={})
    found = cell(content, "relearn")
    assert has(found, 7.6, 6.1, 10.1, 6.8, 5.3, 9.3)
    assert (found.excess_error, found.p_value, found.authors) == (1.25, 0.003, 6)
    assert has(cell(content, "relearn", "retain"), 0.8, -0.7, 3.3)
    assert row(content, "relearn").cells["other"] is None
    assert row(content, "relearn").n == 44
    assert content.relearn == {"unlearned": figures}


def test_one_row_across_the_audits() -> None:
    counted = {"index": 7, "tier": "gist", "leaked": True}
    recall = [
        {**counted, "family": family, "tier": tier} for family, tier in (("cloze", "none"), ("direct", "specific"))
    ]
    clues = [
        {**counted, "family": family, "leaked": family == "clues_1"} for family in ("clues_0", "clues_1", "shuffled")
    ]
    content = built(
        unlearned={
            "runs": [
                run("tofu_forget_quality", [{"index": 7, "truth_ratio": 0.7, "retain_truth_ratio": 0.6}]),
                run("tofu_answer_logprob", [{"index": 7, "answer_logprob": -1.7, "full_answer_logprob": -1.0}]),
                run("tofu_recognition", [{"index": 7, "correct": True}]),
                run("tofu_best_of_n", [{**counted, "family": "direct", "leaked": 3, "n": 5}]),
                run("tofu_chain_of_clues", clues),
                run("tofu_novel_recall", recall),
                run("tofu_model_utility", [], metrics={}),
            ]
        },
        full={
            "runs": [run("tofu_novel_recall", [{**counted, "index": index, "family": "direct"} for index in (9, 3)])]
        },
    )
    first = next(each for each in content.rows if each.arm == "unlearned")
    assert (first.index, first.question, first.truth_ratio, first.logprob) == (7, "Question 7?", 0.7, -1.7)
    assert first.tier == "specific"
    assert first.leaks == {
        "tofu_recognition": (1, 1),
        "tofu_best_of_n": (3, 5),
        "tofu_chain_of_clues": (1, 2),
        "tofu_novel_recall": (2, 2),
    }
    assert [(each.arm, each.index) for each in content.rows] == [("unlearned", 7), ("full", 3), ("full", 9)]


@pytest.mark.parametrize(
    ("value", "unit", "plain", "signed"),
    [
        (0.123, "share", "12.3 %", "+12.3 %"),
        (-0.0001, "share", "0.0 %", "+0.0 %"),
        (0.123, "share_points", "12.3 points", "+12.3 points"),
        (12.34, "points", "12.3 points", "+12.3 points"),
        (0.0123, "p", "0.012", "0.012"),
        (0.001, "p", "0.001", "0.001"),
        (0.00099, "p", "9.9e-04", "9.9e-04"),
        (-1.2346, "nats", "-1.235", "-1.235"),
        (0.5, "number", "0.500", "+0.500"),
        pytest.param(NAN, "share", "–", "–", id="none"),
    ],
)
def test_figures_as_text(value: float, unit: str, plain: str, signed: str) -> None:
    assert formatting.text(value, unit) == plain
    assert formatting.text(value, unit, sign=True) == signed


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0.01, 0.234, "share", "1.0 to 23.4"),
        (-0.01, 0.234, "share_points", "-1.0 to 23.4"),
        (-1.0, 23.4, "points", "-1.0 to 23.4"),
        (-0.0001, 0.25, "nats", "0.000 to 0.250"),
        (NAN, 0.2, "share", ""),
        (0.2, NAN, "share", ""),
    ],
)
def test_intervals_as_text(low: float, high: float, unit: str, expected: str) -> None:
    assert formatting.span(low, high, unit) == expected


@pytest.mark.parametrize(
    ("found", "unit", "expected"),
    [
        (Measured(0.0, 0.0, 0.259), "share", "at most 25.9 %"),
        (Measured(1.0, 0.741, 1.0), "share", "at least 74.1 %"),
        (Measured(0.3, 0.2, 0.4), "share", "20.0 to 40.0"),
        (Measured(0.0, -1.0, 2.0), "points", "-1.0 to 2.0"),
        (Measured(0.0), "share", ""),
    ],
)
def test_one_limit_at_the_ends(found: Measured, unit: str, expected: str) -> None:
    assert formatting.limits(found, unit) == expected
