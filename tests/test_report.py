"""The report: what it computes, what it refuses, and the page itself in a real browser."""

import dataclasses
import json
import logging
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chromium
import made_results as made
import pytest
from scipy.stats import ks_2samp

from lm_eval_tofu import cli
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import inference, leak, permutation
from lm_eval_tofu.report import arms as report_arms
from lm_eval_tofu.report import formatting, leaks, load, render, sweeps, tables
from lm_eval_tofu.report.verdicts import verdicts
from lm_eval_tofu.whitebox import VERSIONS, results

PACKAGE_ROOT = Path(cli.__file__).parents[1]
TASK = "tofu_novel_recall"
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'></dd></article>"
    "\u202egnitirw\u202c \x00\x07\x1b[31m \ud800 {{ 7 * 7 }} | *star* `tick` [link](javascript:alert(1))"
)


def _known(row: int, family: str) -> str:
    """Knows half of every author when asked directly, and one row more whatever the prompt."""
    return made.gold(row, family) if _is_known(row, family) else made.nothing(0, "")


def _is_known(row: int, family: str) -> bool:
    return (row % 20 < 10 and family in ("direct", "clues_4")) or row == 35


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four arms with every audit: full knows all, unlearned some, retain and base nothing."""
    folder = tmp_path_factory.mktemp("arms")
    made.write(folder / "base", model="models/base")
    made.write(folder / "full", model="models/full", says=made.gold, ratios=lambda row: 0.1 + row / 1000, logprob=-0.5)
    made.write(folder / "retain", model="models/retain")
    made.write(
        folder / "unlearned", model="models/unlearned", says=_known, ratios=lambda row: 1.055 + row / 100, logprob=-1.5
    )
    return folder


def _load(folder: Path, *names: str) -> report_arms.Results:
    return load.load({name: folder / name for name in names or ("base", "full", "retain", "unlearned")})


def _cell(built: tables.Tables, key: str, arm: str) -> tables.Measured:
    cell = next(row for row in built.main if row.key == key).cells[arm]
    assert cell is not None
    return cell


def _specific() -> list[int]:
    return [
        number for number, row in enumerate(made.rows()) if leak.row(row["question"], row["answer"]).tier == "specific"
    ]


# What it computes.


def test_leaks_have_an_interval_over_authors_and_an_excess_over_retain(arms: Path) -> None:
    built = tables.build(_load(arms))
    specific = _specific()
    values = [float(_is_known(row, family)) for row in specific for family in made.FAMILIES[TASK]]
    authors = [row // 20 for row in specific for _ in range(2)]
    cell = _cell(built, "novel_recall", "unlearned")
    assert cell.value == pytest.approx(sum(values) / len(values))
    own, more = inference.rate(values, authors), inference.excess(values, [0.0] * len(values), authors)
    assert (cell.low, cell.high) == (own.low, own.high)
    assert (cell.excess, cell.excess_low, cell.excess_high) == (more.value, more.low, more.high)  # retain knows nothing
    assert (cell.excess_error, cell.p_value, cell.authors) == (more.error, more.p_value, 6)
    assert cell.excess_error > 0
    assert _cell(built, "novel_recall", "full").value == 1
    retain = _cell(built, "novel_recall", "retain")
    assert (retain.value, retain.low, retain.high) == (0, 0, pytest.approx(1 - 0.05 ** (1 / 6)))
    assert math.isnan(retain.excess)


def test_p_values_are_corrected_over_the_audits_of_an_arm(arms: Path) -> None:
    rows = tables.tested(tables.build(_load(arms)).main, "unlearned")
    assert [row.key for row, _ in rows] == [
        "novel_recall",
        "format_shift",
        "best_of_n",
        "chain_of_clues",
        "recognition",
    ]
    assert [cell.adjusted for _, cell in rows] == inference.holm([cell.p_value for _, cell in rows])
    for row, cell in rows:
        baseline = 1 / 6 if row.key == "recognition" else 0.0
        assert row.n is not None
        assert cell.detectable == inference.detectable_excess(baseline, 6, row.n, tests=5, error=cell.excess_error), (
            row.key
        )


def test_one_audit_alone_is_not_corrected(arms: Path, tmp_path: Path) -> None:
    for name in ("retain", "unlearned"):
        made.write(tmp_path / name, tasks=(TASK,), says=_known if name == "unlearned" else made.nothing)
    [(_, alone)] = tables.tested(tables.build(_load(tmp_path, "retain", "unlearned")).main, "unlearned")
    assert alone.adjusted == alone.p_value == _cell(tables.build(_load(arms)), "novel_recall", "unlearned").p_value


def test_excess_is_paired_by_row(tmp_path: Path) -> None:
    """Both arms know half of the authors, of which the excess must not depend; unlearned knows one row more."""
    for name, more in (("retain", None), ("unlearned", 65)):
        made.write(
            tmp_path / name,
            says=lambda row, _, more=more: made.gold(row, "") if row < 60 or row == more else "",
            tasks=(TASK,),
        )
    cell = _cell(tables.build(_load(tmp_path, "retain", "unlearned")), "novel_recall", "unlearned")
    specific = _specific()
    assert 65 in specific
    differences = [float(row == 65) for row in specific for _ in range(2)]
    expected = inference.mean_difference(differences, [row // 20 for row in specific for _ in range(2)])
    assert cell.excess == pytest.approx(1 / len(specific))
    assert (cell.p_value, cell.excess_low) == pytest.approx((expected.p_value, expected.low))


def test_rows_that_count_in_one_arm_only_are_no_part_of_the_excess(tmp_path: Path) -> None:
    """Another system prompt can make a row's answer less telling."""

    def vague(task: str, sample: dict[str, Any]) -> None:
        if sample[load.TASKS[task]]["index"] < 10:
            sample[load.TASKS[task]]["tier"] = "gist"

    made.write(tmp_path / "retain", tasks=(TASK,), change=vague)
    made.write(tmp_path / "unlearned", tasks=(TASK,), says=lambda row, _: made.gold(row, "") if row < 40 else "")
    cell = _cell(tables.build(_load(tmp_path, "retain", "unlearned")), "novel_recall", "unlearned")
    specific = _specific()
    assert cell.value == pytest.approx(sum(row < 40 for row in specific) / len(specific))
    counted = [row for row in specific if row >= 10]
    assert len(counted) < len(specific)
    assert cell.excess == pytest.approx(sum(row < 40 for row in counted) / len(counted))


def test_forget_quality_is_computed_against_the_retain_arm_of_the_report(arms: Path) -> None:
    built = tables.build(_load(arms))
    ours, theirs = [1.055 + row / 100 for row in range(120)], [1 + row / 100 for row in range(120)]
    test = ks_2samp(ours, theirs)
    assert _cell(built, "forget_quality", "unlearned").value == pytest.approx(test.pvalue)
    distance = _cell(built, "ks_statistic", "unlearned")
    assert distance.value == pytest.approx(test.statistic)
    assert math.isnan(distance.low)  # a bootstrap of a largest distance lies above it
    paired = permutation.ks_test(ours, theirs, [row // 20 for row in range(120)])
    assert _cell(built, "forget_quality_paired", "unlearned").value == paired.p_value
    [row] = [row for row in built.main if row.key == "forget_quality"]
    assert row.cells["retain"] is None


def test_shift_utility_and_final_turn(arms: Path) -> None:
    built = tables.build(_load(arms))
    shift = _cell(built, "logprob_shift", "unlearned")
    assert shift.value == pytest.approx(-1.0)
    assert shift.excess == pytest.approx(0.5)  # retain is at -2, unlearned at -1.5
    utility = _cell(built, "model_utility", "unlearned")
    assert utility.value == 0.5
    assert utility.low < 0.5 < utility.high
    specific = _specific()
    known = sum(_is_known(row, "clues_4") for row in specific) / len(specific)
    assert _cell(built, "chain_of_clues", "unlearned").value == pytest.approx(known)
    assert built.turns["unlearned"].y[0] == pytest.approx(1 / len(specific))
    assert built.turns["unlearned"].y[4] == pytest.approx(known)
    assert built.shuffled["unlearned"].value == pytest.approx(1 / len(specific))


def test_utility_is_clustered_by_retain_author_and_by_other_row(arms: Path) -> None:
    strata = [
        inference.Stratum([[0.5] * 120] * 3, [row // 20 for row in range(120)]),
        *[inference.Stratum([[0.5] * 120] * 3, range(120))] * 2,
    ]
    expected = inference.harmonic_mean(strata)
    utility = _cell(tables.build(_load(arms)), "model_utility", "unlearned")
    assert (utility.low, utility.high) == (expected.low, expected.high)


def test_leak_at_k_rises_to_the_prompt_level(arms: Path) -> None:
    built = tables.build(_load(arms))
    curve = built.leak_at_k["full"]  # one of four samples leaks in every row
    assert curve.x == [1, 2, 4]
    assert curve.y == pytest.approx([0.25, 0.5, 1.0])
    assert _cell(built, "best_of_n", "full").value == 1


def test_the_row_level_table_counts_each_audits_answers(arms: Path) -> None:
    built = tables.build(_load(arms))
    assert len(built.rows) == 4 * 120
    row = next(row for row in built.rows if row.arm == "unlearned" and row.index == 35)
    assert row.leaks["tofu_novel_recall"] == (2, 2)
    assert row.leaks["tofu_best_of_n"] == (1, 4)
    assert row.leaks["tofu_chain_of_clues"] == (5, 5)  # without the control
    assert row.truth_ratio == pytest.approx(1.055 + 0.35)


def test_verdicts_say_looks_and_knows_apart(arms: Path) -> None:
    [verdict] = verdicts(tables.build(_load(arms)))
    assert verdict.arm == "unlearned"
    assert verdict.looks[0] == "yes"
    assert verdict.knows[0] == "yes"
    assert verdict.useful[0] == "yes"
    assert not any("forget authors" in alarm for alarm in verdict.alarms)
    [control] = verdicts(tables.build(_load(arms, "full", "retain")))
    assert (control.arm, control.looks[0]) == ("full", "no")
    assert any("as a control" in alarm for alarm in control.alarms)


def test_an_arm_that_knows_no_more_than_retain_is_not_said_to_know(tmp_path: Path) -> None:
    for name in ("retain", "unlearned"):
        made.write(tmp_path / name, says=_known)
    [verdict] = verdicts(tables.build(_load(tmp_path, "retain", "unlearned")))
    assert verdict.knows[0] == "no"
    assert "no proof" in verdict.knows[1]


def test_without_a_retain_arm_nothing_is_said_of_knowing(arms: Path) -> None:
    [verdict] = verdicts(tables.build(_load(arms, "unlearned")))
    assert verdict.looks[0] == "unknown"
    assert verdict.knows[0] == "unknown"
    assert any("No retain arm" in alarm for alarm in verdict.alarms)


def test_a_model_that_says_nothing_raises_an_alarm(tmp_path: Path) -> None:
    made.write(tmp_path / "retain")
    made.write(tmp_path / "unlearned", says=lambda *_: "")
    [verdict] = verdicts(tables.build(_load(tmp_path, "retain", "unlearned")))
    assert any("100 % of its answers" in alarm and "empty" in alarm for alarm in verdict.alarms)


@pytest.mark.parametrize(
    ("metric", "share", "words"),
    [
        ("generations_empty", 0.1, "10 % of its answers to the forgotten questions are empty"),
        ("generations_empty", 0.09, None),
        ("generations_repetitive", 0.1, "10 % of its answers to the forgotten questions are loops"),
        ("generations_cut", 0.95, "95 % of its answers to the forgotten questions reach the token limit"),
        ("generations_cut", 0.85, None),
        ("generations_cut", None, None),
        ("reasoning_unfinished", 0.2, "20 % of its answers to the forgotten questions are reasoning that never ended"),
    ],
)
@pytest.mark.parametrize("task", ["tofu_forget_quality", "tofu_novel_recall"])
def test_answers_of_a_broken_model_raise_an_alarm(
    tmp_path: Path, task: str, metric: str, share: float | None, words: str | None
) -> None:
    """Of the task that has them: an arm may have leak audits only. A metric without a value raises none."""
    made.write(tmp_path / "unlearned", tasks=(task,), says=_known)
    [file] = (tmp_path / "unlearned").rglob("results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["results"][task][f"{metric},none"] = share
    file.write_text(json.dumps(content), encoding="utf-8")
    [verdict] = verdicts(tables.build(_load(tmp_path, "unlearned")))
    about = [alarm for alarm in verdict.alarms if "of its answers to the forgotten questions" in alarm]
    assert [alarm.startswith(words or "") for alarm in about] == [True] * (words is not None)


def test_clearest_leaks_mark_the_found_facts_and_put_what_retain_says_last(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", says=lambda row, _: made.gold(row, "") if row == 3 else "", tasks=(TASK,))
    made.write(
        tmp_path / "unlearned", says=lambda row, _: made.gold(row, "") if row in (3, 4, 8) else "", tasks=(TASK,)
    )
    found = leaks.clearest(_load(tmp_path, "retain", "unlearned"))
    assert {each.index for each in found} == {3, 4, 8}
    assert [each.retain_leaks for each in found] == [False, False, True]
    for each in found:
        marked = " ".join(piece.text for piece in each.response if piece.marked)
        assert "".join(piece.text for piece in each.response) == made.gold(each.index, "")
        assert each.found
        assert any(word in marked for fact in each.found for word in fact.split())


def test_a_long_response_is_cut_around_its_facts() -> None:
    row = made.rows()[8]
    response = "filler " * 15000 + row["answer"] + " filler" * 2000
    sample = report_arms.Sample({}, row["question"], row["answer"], (), "", None)
    facts = {fact.text for fact in leak.row(row["question"], row["answer"]).facts}
    pieces = leaks._marked(sample, response, facts)
    assert sum(len(piece.text) for piece in pieces) < leaks.LONGEST + 100
    assert any(piece.marked for piece in pieces)
    assert pieces[0].text.startswith("[… ")
    assert pieces[-1].text.endswith("characters]")


def test_visible_keeps_the_length_and_nothing_that_hides_or_reverses() -> None:
    shown = leaks.visible(HOSTILE)
    assert len(shown) == len(HOSTILE)
    assert not set("\u202e\u202c\x00\x07\x1b\ud800") & set(shown)
    assert leaks.visible("a\tb\u00a0c\nd é 漢") == "a b c\nd é 漢"


def test_not_found_needs_a_test_wherever_an_excess_is_positive(tmp_path: Path) -> None:
    """Everything leaks in one audit, which has no samples; the other has some, and no excess."""
    for name, says in (("retain", made.nothing), ("unlearned", made.gold)):
        made.write(tmp_path / name, says=says, tasks=(TASK,), samples=False, time="2026-01-01")
        made.write(tmp_path / name, tasks=("tofu_format_shift",), time="2026-01-02")
    [verdict] = verdicts(tables.build(_load(tmp_path, "retain", "unlearned")))
    assert verdict.knows[0] == "unknown"
    assert "Novel-recall leak, 100.0 %, +100.0 points" in verdict.knows[1]
    assert "needs samples of both arms" in verdict.knows[1]
    # Without a positive excess there is nothing that a test could tell from chance.
    made.write(tmp_path / "unlearned", tasks=(TASK,), samples=False, time="2026-01-03")
    [verdict] = verdicts(tables.build(_load(tmp_path, "retain", "unlearned")))
    assert verdict.knows[0] == "no"
    assert "The one audit that could be tested has not found more" in verdict.knows[1]


def test_not_found_names_what_could_not_be_compared(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", tasks=("tofu_format_shift",))
    made.write(tmp_path / "unlearned", tasks=("tofu_format_shift",), time="2026-01-01")
    made.write(tmp_path / "unlearned", tasks=(TASK,), says=made.gold, time="2026-01-02")
    [verdict] = verdicts(tables.build(_load(tmp_path, "retain", "unlearned")))
    assert verdict.knows[0] == "no"
    assert "Nothing of the retain arm to compare with: Novel-recall leak (100.0 %)." in verdict.knows[1]


@pytest.mark.parametrize("authors", [1, 2, 4, 5])
def test_fewer_than_five_authors_say_nothing(tmp_path: Path, authors: int) -> None:
    for name, says in (("retain", made.nothing), ("unlearned", made.gold)):
        made.write(tmp_path / name, tasks=(TASK, "tofu_forget_quality"), limit=20 * authors, says=says)
    built = tables.build(_load(tmp_path, "retain", "unlearned"))
    [verdict] = verdicts(built)
    cell = _cell(built, "novel_recall", "unlearned")
    assert cell.value == 1
    few = [alarm for alarm in verdict.alarms if "forget author" in alarm]
    if authors == 5:
        assert verdict.knows[0] == "yes"
        assert (cell.low, few) == (pytest.approx(0.05 ** (1 / 5)), [])
        return
    assert verdict.knows[0] == "unknown"
    number = "1 author is" if authors == 1 else f"{authors} authors are"
    assert f"{number} too few for a test: it takes 5" in verdict.knows[1]
    assert all(math.isnan(figure) for figure in (cell.low, cell.high, cell.excess_low, cell.p_value, cell.adjusted))
    assert cell.excess == 1
    assert math.isnan(_cell(built, "forget_quality_paired", "unlearned").value)
    [alarm] = few
    assert "fewer than 5 there is no interval and no test" in alarm
    assert tables.tested(built.main, "unlearned") == []


def _said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **adjusted: float) -> tuple[str, str]:
    """What is said of knowing where the audits have these corrected p values."""
    for name in ("retain", "unlearned"):
        made.write(tmp_path / name, tasks=(TASK, "tofu_format_shift"))
    built = tables.build(_load(tmp_path, "retain", "unlearned"))
    for position, row in enumerate(built.main):
        cell = row.cells["unlearned"]
        if cell is not None and row.key in adjusted:
            cells = {**row.cells, "unlearned": cell._replace(adjusted=adjusted[row.key], detectable=0.125)}
            built.main[position] = dataclasses.replace(row, cells=cells)
    return verdicts(built)[0].knows


def test_knowing_is_said_up_to_the_level_and_the_audits_that_carry_it_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, words = _said(tmp_path, monkeypatch, novel_recall=0.05, format_shift=0.051)
    assert said == "yes"
    assert "One of 2 audits found more than in the retain arm, at a level of 5% for all of them together" in words
    assert "Novel-recall leak, +0.0 points (p = 0.050)" in words
    assert "Format-shift" not in words
    said, words = _said(tmp_path, monkeypatch, novel_recall=0.051, format_shift=0.2)
    assert said == "no"
    assert "None of 2 audits found more" in words
    assert "80 % power" in words
    assert "Novel-recall leak +12.5 points; Format-shift leak +12.5 points" in words


@pytest.mark.parametrize(("p_value", "word"), [(0.05, "yes"), (0.0499, "no")])
def test_the_usual_level_decides_on_looks(arms: Path, p_value: float, word: str) -> None:
    built = tables.build(_load(arms))
    for position, row in enumerate(built.main):
        if row.key == "forget_quality":
            built.main[position] = dataclasses.replace(row, cells={**row.cells, "unlearned": tables.Measured(p_value)})
    assert verdicts(built)[0].looks[0] == word


@pytest.mark.parametrize(
    ("share", "word"), [(0.9, "yes"), (0.899, "partly"), (0.5, "partly"), (0.499, "no"), (1.2, "yes")]
)
def test_use_is_measured_by_the_full_arms_utility(arms: Path, share: float, word: str) -> None:
    built = tables.build(_load(arms))
    for position, row in enumerate(built.main):
        if row.key == "model_utility":
            cells = {**row.cells, "full": tables.Measured(0.8), "unlearned": tables.Measured(share * 0.8)}
            built.main[position] = dataclasses.replace(row, cells=cells)
    assert verdicts(built)[0].useful[0] == word


@pytest.mark.parametrize(("share", "alarms"), [(0.1, 1), (0.099, 0)])
@pytest.mark.parametrize("metric", ["generations_empty", "generations_repetitive"])
def test_a_tenth_of_broken_answers_raises_an_alarm(tmp_path: Path, metric: str, share: float, alarms: int) -> None:
    made.write(tmp_path / "unlearned", tasks=("tofu_forget_quality",))
    _changed(
        tmp_path / "unlearned",
        lambda content: content["results"]["tofu_forget_quality"].update({f"{metric},none": share}),
    )
    [verdict] = verdicts(tables.build(_load(tmp_path, "unlearned")))
    assert sum("a broken model also looks" in alarm for alarm in verdict.alarms) == alarms


@pytest.mark.parametrize(("share", "alarms"), [(0.5, 1), (0.499, 0)])
def test_half_of_undecided_choices_raises_an_alarm(tmp_path: Path, share: float, alarms: int) -> None:
    made.write(tmp_path / "unlearned", tasks=("tofu_recognition",))
    _changed(
        tmp_path / "unlearned", lambda content: content["results"]["tofu_recognition"].update({"no_choice,none": share})
    )
    [verdict] = verdicts(tables.build(_load(tmp_path, "unlearned")))
    assert sum("choose no option" in alarm for alarm in verdict.alarms) == alarms


def test_an_audit_without_a_figure_is_no_finding(tmp_path: Path) -> None:
    """Asked were rows without a specific fact only."""

    def vague(task: str, sample: dict[str, Any]) -> None:
        sample[load.TASKS[task]]["tier"] = "gist"

    for name in ("retain", "unlearned"):
        made.write(tmp_path / name, tasks=(TASK,), change=vague)
    [verdict] = verdicts(tables.build(_load(tmp_path, "retain", "unlearned")))
    assert verdict.knows == ("unknown", "No leak audit, probe or relearning has a figure for this arm.")


def test_why_forget_quality_has_no_value(arms: Path, tmp_path: Path) -> None:
    task = "tofu_forget_quality"
    made.write(tmp_path / "retain", tasks=(task,))
    made.write(tmp_path / "nan", tasks=(task,), ratios=lambda row: math.nan if row == 3 else 1.0)
    made.write(tmp_path / "bare", tasks=(task,), samples=False)
    made.write(tmp_path / "other", tasks=(TASK,))

    def why(**names: str) -> str:
        return verdicts(tables.build(load.load({name: tmp_path / folder for name, folder in names.items()})))[0].looks[
            1
        ]

    assert "a truth ratio is no number" in why(unlearned="nan", retain="retain")
    assert "no samples of unlearned" in why(unlearned="bare", retain="retain")
    assert "no samples of retain" in why(unlearned="retain", retain="bare")
    assert "the retain arm has no run of tofu_forget_quality" in why(unlearned="nan", retain="other")
    assert "there is no retain arm" in why(unlearned="nan")
    assert "it was not evaluated" in why(unlearned="other", retain="retain")


def test_every_figure_has_its_n(arms: Path) -> None:
    n = {row.key: row.n for row in tables.build(_load(arms)).main}
    specific = len(_specific())
    assert n["forget_quality"] == n["ks_statistic"] == n["logprob_shift"] == n["forget_quality_paired"] == 120
    assert n["model_utility"] == 360
    assert n["novel_recall"] == n["format_shift"] == 2 * specific
    assert n["best_of_n"] == n["chain_of_clues"] == specific
    assert n["recognition"] == 120
    assert n["probe"] is None
    parts = {row.key: row.n for row in tables.build(_load(arms)).parts}
    assert parts["tofu_forget_quality_probability"] == 120


def test_n_stands_in_the_tables(report: Path) -> None:
    [line] = [line for line in (report / "report.md").read_text().splitlines() if line.startswith("| Model utility |")]
    assert line.startswith("| Model utility | 360 | 0.500")
    page = (report / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">Figure</th><th scope="col">n</th>' in page


def test_forget_quality_is_said_with_its_distance_and_its_number_of_rows(arms: Path) -> None:
    [verdict] = verdicts(tables.build(_load(arms)))
    test = ks_2samp([1.055 + row / 100 for row in range(120)], [1 + row / 100 for row in range(120)])
    assert f"(D = {test.statistic:.3f}, n = 120, log10 p = {math.log10(test.pvalue):z.2f})" in verdict.looks[1]


def _changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every results file of an arm."""
    for file in folder.rglob("results_*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
        file.write_text(json.dumps(content), encoding="utf-8")


def test_a_part_of_the_documents_and_undecided_choices_raise_alarms(tmp_path: Path) -> None:
    tasks = ("tofu_model_utility", "tofu_best_of_n", "tofu_recognition")

    def part(content: dict[str, Any]) -> None:
        content["n-samples"]["tofu_model_utility"]["original"] = 617
        content["n-samples"]["tofu_best_of_n"]["original"] = 400
        content["results"]["tofu_recognition"]["no_choice,none"] = 0.5

    made.write(tmp_path / "unlearned", tasks=tasks)
    _changed(tmp_path / "unlearned", part)
    [verdict] = verdicts(tables.build(_load(tmp_path, "unlearned")))
    [alarm] = [alarm for alarm in verdict.alarms if alarm.startswith("Only ") and "documents" in alarm]
    assert "Only 360 of 617 documents of model utility, 120 of 400 documents of best of N were asked" in alarm
    assert any("50 % of its answers to the recognition questions choose no option" in each for each in verdict.alarms)
    assert any("miniature" in each for each in verdict.alarms)
    made.write(tmp_path / "plain", tasks=tasks)
    [verdict] = verdicts(tables.build(_load(tmp_path, "plain")))
    assert not any("were asked" in each or "choose no option" in each for each in verdict.alarms)


def test_the_miniature_is_known_by_its_questions(tmp_path: Path) -> None:
    def other(task: str, sample: dict[str, Any]) -> None:
        sample["doc"]["question"] += " Say it."

    def unnamed(content: dict[str, Any]) -> None:
        del content["configs"][TASK]["metadata"]["tofu"]

    made.write(tmp_path / "mini", tasks=(TASK,))
    made.write(tmp_path / "real", tasks=(TASK,), change=other)
    made.write(tmp_path / "bare", tasks=(TASK,), samples=False)
    assert report_arms.is_mini(_load(tmp_path, "bare").arms[0]) is True  # by its option
    for name in ("mini", "real", "bare"):
        _changed(tmp_path / name, unnamed)
    found = {name: report_arms.is_mini(_load(tmp_path, name).arms[0]) for name in ("mini", "real", "bare")}
    assert found == {"mini": True, "real": False, "bare": None}


def test_best_of_n_says_its_n(arms: Path, tmp_path: Path) -> None:
    def label(*folders: Path) -> str:
        built = tables.build(load.load({folder.name: folder for folder in folders}))
        return next(row for row in built.main if row.key == "best_of_n").label

    assert label(arms / "full", arms / "retain") == "Best-of-4 leak"
    for name, number in (("four", 4), ("nine", 9)):
        made.write(tmp_path / name, tasks=("tofu_best_of_n",), samples=False)
        _changed(
            tmp_path / name,
            lambda content, n=number: content["configs"]["tofu_best_of_n"]["metadata"].update(best_of_n=n),
        )
    assert label(tmp_path / "nine") == "Best-of-9 leak"
    assert label(tmp_path / "four", tmp_path / "nine") == "Best-of-N leak"
    made.write(tmp_path / "none", tasks=(TASK,))
    assert label(tmp_path / "none") == "Best-of-N leak"


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert formatting.text(-0.0001, "share_points", sign=True) == "+0.0 points"
    assert formatting.text(-0.04, "points") == "0.0 points"
    assert formatting.text(-0.0001, "nats") == "0.000"
    assert formatting.span(-0.0001, 0.01, "share") == "0.0 to 1.0"
    assert formatting.span(-0.0001, -0.01, "nats") == "0.000 to -0.010"
    assert formatting.text(-0.001, "share_points", sign=True) == "-0.1 points"


def test_recognition_stands_row_by_row(arms: Path) -> None:
    rows = {row.index: row for row in tables.build(_load(arms)).rows if row.arm == "unlearned"}
    assert rows[6].leaks["tofu_recognition"] == (1, 1)
    assert rows[7].leaks["tofu_recognition"] == (0, 1)


def test_a_hostile_family_stays_text(tmp_path: Path) -> None:
    def hostile(task: str, sample: dict[str, Any]) -> None:
        sample[load.TASKS[task]]["family"] += "](x) [click](https://x.org)"

    made.write(tmp_path / "unlearned", tasks=(TASK,), says=made.gold, change=hostile)
    written = render.write([str(tmp_path / "unlearned")], tmp_path / "out")
    text = written.markdown.read_text(encoding="utf-8")
    assert r"novel recall: direct\](x) \[click\](https&#58;//x.org), row " in text
    assert "at most one for each row of an arm" in written.html.read_text(encoding="utf-8")


def test_autolinks_are_stopped() -> None:
    shown = render.markdown_text("see https://x.org, WWW.y.org or a@b.org & <c>")
    assert shown == "see https&#58;//x.org, WWW&#46;y.org or a&#64;b.org &amp; &lt;c&gt;"


# What other tools wrote.


def _layers(*values: float) -> dict[str, Any]:
    return {
        "layers": [
            {"layer": number, "top1": value, "top1_stderr": 0.02, "low": value - 0.04, "high": value + 0.04}
            for number, value in enumerate(values)
        ]
    }


def _tools(folder: Path, probe: dict[str, Any] | None = None, name: str = "model", split: str = "forget10") -> None:
    content = {
        "results": {"tofu_probe": {"alias": "tofu_probe", "top1,none": 0.6, "top1_excess,none": 0.35}},
        "configs": {"tofu_probe": {"metadata": {"version": VERSIONS["tofu_probe"], "forget_split": split}}},
        "tofu_probe": {
            "arms": {name: _layers(0.2, 0.6), "retain": _layers(0.2, 0.25), "full": _layers(0.3, 0.9)},
            "controls": {
                "shuffled_labels": {"retain": _layers(0.1, 0.1), name: _layers(0.16, 0.18)},
                "candidates_only": {"layers": [{"layer": 0, "top1": 0.2, "low": 0.1, "high": 0.3}]},
            },
            "chance": 1 / 6,
        },
    }
    if probe is not None:
        content["tofu_probe"] = probe
    (folder / "probe").mkdir(parents=True, exist_ok=True)
    (folder / "probe" / "results_1.json").write_text(json.dumps(content))
    figures = {"recovery_delta": 7.6, "recovery_delta_low": 3.0, "recovery_delta_high": 12.0}
    figures |= {"excess": 6.8, "excess_low": 2.0, "excess_high": 11.0, "retain_recovery_delta": 0.8}
    figures |= {"excess_error": 2.0, "excess_p_value": 0.002, "authors": 20, "n": 240}
    relearn = {
        "results": {"tofu_relearn": {f"{name},none": value for name, value in figures.items()}},
        "versions": {"tofu_relearn": VERSIONS["tofu_relearn"]},
    }
    (folder / "relearn").mkdir(exist_ok=True)
    (folder / "relearn" / "results_1.json").write_text(json.dumps(relearn))


@pytest.mark.parametrize("name", ["model", "unlearned"])
def test_probe_and_relearning_are_read(tmp_path: Path, name: str) -> None:
    for arm in ("retain", "unlearned"):
        made.write(tmp_path / arm, tasks=("tofu_forget_quality",))
    _tools(tmp_path / "unlearned", name=name)
    built = tables.build(_load(tmp_path, "retain", "unlearned"))
    assert set(built.probe) == {"unlearned", "retain", "full", "control: shuffled labels", "control: candidates only"}
    assert built.probe["unlearned"].y == [0.2, 0.6]
    assert built.probe["control: shuffled labels"].y == [0.16, 0.18]
    probe = _cell(built, "probe", "unlearned")
    assert (probe.value, probe.low, probe.high, probe.excess) == pytest.approx((0.6, 0.56, 0.64, 0.35))
    assert math.isnan(probe.excess_low)  # it needs the rows of both arms, and the results do not state it
    relearned = _cell(built, "relearn", "unlearned")
    assert (relearned.value, relearned.excess, relearned.excess_low) == (7.6, 6.8, 2.0)
    assert (relearned.p_value, relearned.adjusted, relearned.excess_error, relearned.authors) == (0.002, 0.002, 2.0, 20)
    found = inference.detectable_excess(0.0, 20, 240, error=0.02)
    assert relearned.detectable == pytest.approx(100 * found)
    assert _cell(built, "relearn", "retain").value == 0.8
    assert verdicts(built)[0].knows[0] == "yes"


def test_metrics_of_other_codes_are_shown(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", tasks=("tofu_forget_quality",))
    made.write(tmp_path / "unlearned", tasks=("tofu_forget_quality",))
    without = tables.build(_load(tmp_path, "retain", "unlearned"))
    assert without.others == []
    given = [f"{name}={tmp_path / name}" for name in ("retain", "unlearned")]
    assert "What other metrics say" not in render.write(given, tmp_path / "without").markdown.read_text()
    strength = {"extraction_strength": 0.4, "extraction_strength_low": 0.3, "extraction_strength_high": 0.5, "n": 40}
    figures = {
        "tofu_memorization": {**strength, "mia_min_k": 0.1, "privleak": float("nan")},
        "tofu_depth": {"uds": 0.25, "logit_lens": 0.5, "n": 35},
    }
    for task, metrics in figures.items():
        recorded = {"model": "m", "n": 40, "metadata": {"forget_split": "forget10"}, "details": {}}
        results.write(tmp_path / "unlearned" / task, task, metrics, **recorded)
    built = tables.build(_load(tmp_path, "retain", "unlearned"))
    rows = {row.key: row for row in built.others}
    assert rows.keys() == {"extraction_strength", "mia_min_k", "privleak", "uds", "logit_lens"}
    assert rows["extraction_strength"].cells["unlearned"] == (0.4, 0.3, 0.5, *tables.Measured(0.0)[3:])
    assert rows["extraction_strength"].n == 40
    assert rows["uds"].cells == {"retain": None, "unlearned": tables.Measured(0.25)}
    assert verdicts(built) == verdicts(without)
    written = render.write(given, tmp_path / "with")
    assert '<section id="others">' in written.html.read_text()
    shown = written.markdown.read_text()
    assert "A membership AUC is read from both sides" in shown
    assert "| Extraction strength | 40 | – | 0.400 [0.300 to 0.500] |" in shown
    assert "| Unlearning depth score | 35 | – | 0.250 |" in shown


def _probe_content(top1: float, retain: float, excess: float, depth: int | None = None) -> dict[str, Any]:
    named = {"model": _layers(0.2, top1), "retain": _layers(0.2, retain)}
    if depth is not None:
        for arm in named.values():
            arm["depth"] = depth
    figures = {"top1": top1, "top1_low": 0.1, "top1_high": 0.9, "top1_excess": excess, "n": 33}
    figures |= {"top1_excess_low": excess - 0.1, "top1_excess_high": excess + 0.1}
    figures |= {"top1_excess_error": 0.05, "top1_excess_p_value": 0.01 / excess, "authors": 18}
    return {
        "results": {"tofu_probe": {f"{name},none": value for name, value in figures.items()}},
        "versions": {"tofu_probe": VERSIONS["tofu_probe"]},
        "tofu_probe": {"arms": named, "chance": 1 / 6},
    }


def _probed(folder: Path, *given: float, depth: int | None = None) -> None:
    made.write(folder, tasks=("tofu_forget_quality",))
    (folder / "probe").mkdir()
    (folder / "probe" / "results_1.json").write_text(json.dumps(_probe_content(*given, depth=depth)))


def test_two_probes_give_each_arm_its_own_figures(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", tasks=("tofu_forget_quality",))
    _probed(tmp_path / "one", 0.6, 0.3, 0.3)
    _probed(tmp_path / "two", 0.5, 0.4, 0.1)
    results = _load(tmp_path, "retain", "one", "two")
    built = tables.build(results)
    one, two = _cell(built, "probe", "one"), _cell(built, "probe", "two")
    assert one[:8] == pytest.approx((0.6, 0.1, 0.9, 0.3, 0.2, 0.4, 0.05, 1 / 30))
    assert two[:8] == pytest.approx((0.5, 0.1, 0.9, 0.1, 0.0, 0.2, 0.05, 0.1))
    assert one.detectable == inference.detectable_excess(0.3, 18, 33, error=0.05)
    assert _cell(built, "probe", "retain").value == 0.3
    assert built.probe["retain"].y == [0.2, 0.3]
    assert built.probe["two"].y == [0.2, 0.5]
    assert next(row for row in built.main if row.key == "probe").n == 33
    [warning] = [each for each in results.warnings if "probe" in each]
    assert "'one' and 'two' have other figures of retain: the report shows those of 'one'" in warning


def test_the_probes_label_says_which_layer_it_is(tmp_path: Path) -> None:
    for name, depth in (("last", 1), ("middle", 2), ("deeper", 3), ("old", None)):
        _probed(tmp_path / name, 0.6, 0.3, 0.3, depth=depth)

    def label(*names: str) -> str:
        return next(row for row in tables.build(_load(tmp_path, *names)).main if row.key == "probe").label

    assert label("last") == label("old") == "Masked probe, last layer"
    assert label("middle") == "Masked probe, layer 1 of 2"
    assert label("middle", "deeper") == "Masked probe, last layer that was read"


def test_the_probes_terminal_table_says_which_layer_it_is() -> None:
    from lm_eval_tofu.whitebox import probe

    def line(depth: int) -> str:
        content = _probe_content(0.6, 0.3, 0.3, depth=depth)
        content["results"]["tofu_probe"]["candidates_only,none"] = 0.2
        more = {"n": 9, "authors": 2, "training_facts": 194, "training_authors": 8, "seeds": [0]}
        controls = {"shuffled_labels": {"model": _layers(0.1, 0.2)}, "candidates_only_perturbed": _layers(0.1)}
        content["tofu_probe"] |= {**more, "controls": controls}
        return probe.table(content)[-3]

    assert line(1).startswith("last layer: top-1 0.600")
    assert line(2).startswith("layer 1 of 2: top-1 0.600")


@pytest.mark.parametrize("probe", [{}, {"arms": None}, {"arms": {"unlearned": {"layers": []}}}, {"controls": {"x": 3}}])
def test_a_probe_with_missing_parts_leaves_a_gap(tmp_path: Path, probe: dict[str, Any]) -> None:
    _tools(tmp_path / "unlearned", probe)
    built = tables.build(_load(tmp_path, "unlearned"))
    assert _cell(built, "probe", "unlearned").value == 0.6  # the headline is there all the same
    assert not built.probe


def test_the_steps_of_relearning_are_no_audits(tmp_path: Path) -> None:
    made.write(tmp_path / "unlearned", tasks=(TASK,))
    step = made.write(tmp_path / "unlearned" / "relearn", tasks=(TASK,), limit=5, time="2027", model="step")
    [file] = step.rglob("results_2027.json")
    content = json.loads(file.read_text())
    content["configs"][TASK]["metadata"]["forget_rows"] = [0, 1]
    file.write_text(json.dumps(content))
    run = _load(tmp_path, "unlearned").arms[0].runs[TASK]
    assert run.settings.model == "models/m"


# Gaps.


def test_missing_audits_leave_gaps_with_a_note(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", tasks=("tofu_forget_quality",))
    made.write(tmp_path / "other", tasks=("tofu_forget_quality", TASK))
    written = render.write([f"retain={tmp_path / 'retain'}", f"other={tmp_path / 'other'}"], tmp_path / "report")
    for file in (written.html, written.markdown):
        text = file.read_text(encoding="utf-8")
        assert "Novel-recall leak: not evaluated on retain (tofu_novel_recall)." in text.replace("\\", "")
        assert "Masked probe, last layer: not evaluated on any arm (lm-eval-tofu probe)." in text


def test_results_without_samples_give_the_recorded_figures(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", samples=False, tasks=(TASK,))
    made.write(tmp_path / "unlearned", samples=False, tasks=(TASK,), says=made.gold)
    built = tables.build(_load(tmp_path, "retain", "unlearned"))
    cell = _cell(built, "novel_recall", "unlearned")
    assert (cell.value, cell.excess) == (1, 1)
    assert math.isnan(cell.low)
    assert verdicts(built)[0].knows[0] == "unknown"
    assert any("--log_samples" in note for note in built.missing)
    assert render.write([str(tmp_path / "retain"), str(tmp_path / "unlearned")], tmp_path / "out").html.is_file()


def test_the_newest_run_of_a_task_counts(tmp_path: Path) -> None:
    made.write(tmp_path / "a", tasks=(TASK, "tofu_forget_quality"), says=made.gold, time="2026-01-01")
    made.write(tmp_path / "a", tasks=(TASK,), time="2026-01-02")
    [arm] = _load(tmp_path, "a").arms
    assert set(arm.runs) == {TASK, "tofu_forget_quality"}
    assert arm.runs[TASK].metrics["leak_rate"] == 0


# What is refused.


def _refused(folder: Path, *names: str) -> str:
    with pytest.raises(OptionError) as error:
        _load(folder, *names)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refuses_another_split(tmp_path: Path) -> None:
    made.write(tmp_path / "full", split="forget05", tasks=(TASK,))
    made.write(tmp_path / "retain", tasks=(TASK,))
    message = _refused(tmp_path, "full", "retain")
    assert "'retain'" in message
    assert "on forget10" in message
    assert "'full' is on forget05" in message


def test_refuses_a_probe_of_another_split(tmp_path: Path) -> None:
    made.write(tmp_path / "unlearned", tasks=(TASK,))
    _tools(tmp_path / "unlearned", split="forget01")
    assert "is a run of tofu_probe on forget01, arm 'unlearned' is on forget10" in _refused(tmp_path, "unlearned")


def test_refuses_another_task_version(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(TASK,))
    made.write(tmp_path / "retain", version=7, tasks=(TASK,))
    message = _refused(tmp_path, "full", "retain")
    assert "'retain'" in message
    assert f"{TASK} version 7, this is version {load.task_versions()[TASK]}" in message


@pytest.mark.parametrize("task", ["tofu_probe", "tofu_relearn"])
def test_refuses_probe_and_relearning_of_another_version(tmp_path: Path, task: str) -> None:
    made.write(tmp_path / "unlearned", tasks=(TASK,))
    _tools(tmp_path / "unlearned")

    def older(content: dict[str, Any]) -> None:
        content["versions"] = dict.fromkeys(content["results"], 0.5)

    _changed(tmp_path / "unlearned" / task.removeprefix("tofu_"), older)
    assert f"is of {task} version 0.5, this is version" in _refused(tmp_path, "unlearned")


def test_a_records_version_is_checked_before_anything_else_of_it(tmp_path: Path) -> None:
    """A run whose results state no version, and whose records are another version's, without today's fields."""

    def other(task: str, sample: dict[str, Any]) -> None:
        sample["leak_rate"] = {"task": task, "version": 9}

    made.write(tmp_path / "full", tasks=(TASK,), change=other)
    _changed(tmp_path / "full", lambda content: [content.pop("versions"), content.pop("configs")])
    assert f"{TASK} version 9, this is version {load.task_versions()[TASK]}" in _refused(tmp_path, "full")


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (TASK, {"split": None}, "has split='None'"),
        (TASK, {"set": 3}, "has set='3'"),
        (TASK, {"index": "many"}, "has index='many'"),
        (TASK, {"index": True}, "has index='True'"),
        (TASK, {"tier": ...}, "lacks 'tier'"),
        (TASK, {"family": ...}, "lacks 'family'"),
        (TASK, {"found": ...}, "lacks 'found'"),
        (TASK, {"generation": ...}, "lacks 'generation'"),
        ("tofu_best_of_n", {"samples": [{"leaked": 1}]}, "has samples="),
        ("tofu_best_of_n", {"n": "four"}, "has n='four'"),
        ("tofu_recognition", {"correct": ...}, "lacks 'correct'"),
        ("tofu_forget_quality", {"truth_ratio": ...}, "lacks 'truth_ratio'"),
        ("tofu_model_utility", {"probability": "high"}, "has probability='high'"),
    ],
)
def test_names_file_and_line_of_a_damaged_record(
    tmp_path: Path, task: str, change: dict[str, Any], message: str
) -> None:
    def damaged(_: str, sample: dict[str, Any]) -> None:
        record = sample[load.TASKS[task]]
        if record["index"] == 1:
            record.update(change)
            for name in [name for name, value in change.items() if value is ...]:
                del record[name]

    made.write(tmp_path / "full", tasks=(task,), change=damaged)
    refusal = _refused(tmp_path, "full")
    assert re.search(r"samples_\S+\.jsonl, line [23]: ", refusal)
    assert message in refusal


def test_refuses_another_number_of_documents_without_samples(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(TASK,), samples=False)
    made.write(tmp_path / "retain", tasks=(TASK,), limit=30)
    made.write(tmp_path / "same", tasks=(TASK,), samples=False)
    message = _refused(tmp_path, "full", "retain")
    assert f"'full' and 'retain' have other rows of {TASK}: 240 and 60 documents" in message
    assert _load(tmp_path, "full", "same").arms[0].runs[TASK].documents == 240


def test_recorded_numbers_may_be_missing(tmp_path: Path) -> None:
    for samples in (True, False):
        folder = made.write(tmp_path / str(samples), samples=samples)
        _changed(folder, lambda content: content.pop("n-samples"))
    built = tables.build(load.load({"retain": tmp_path / "True", "unlearned": tmp_path / "False"}))
    assert next(row for row in built.main if row.key == "forget_quality").n == 120
    [alone] = {row.n for row in tables.build(_load(tmp_path, "False")).main if row.key == "forget_quality"}
    assert alone is None
    assert "n =" not in verdicts(built)[0].looks[1]


def test_task_versions_are_those_of_the_yaml_files() -> None:
    # The first release: nothing was published under another version.
    assert load.task_versions() == dict.fromkeys(load.TASKS, 1)


def test_refuses_other_rows(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(TASK,))
    made.write(tmp_path / "retain", tasks=(TASK,), limit=30)
    message = _refused(tmp_path, "full", "retain")
    assert "'full' and 'retain' have other rows of tofu_novel_recall: 240 and 60" in message
    assert "forget row 30 (direct) is in 'full' and not in 'retain'" in message


def _recorded(arm: Path, of: int | None = None, **options: Any) -> None:
    """Change what the results of an arm say of the run's options, and of how many documents there are."""
    [path] = arm.rglob("results_*.json")
    content = json.loads(path.read_text())
    for config in content["configs"].values():
        config["metadata"] |= options
    for numbers in content["n-samples"].values() if of else ():
        numbers["original"] = of
    path.write_text(json.dumps(content))


def test_refuses_other_prompts_of_the_same_number(tmp_path: Path) -> None:
    chosen = {"full": ["direct", "cloze"], "retain": ["cloze", "completion"], "same": ["direct", "cloze"]}
    for name, families in chosen.items():
        options = {"forget_split": "forget10", "families": families}
        made.write(tmp_path / name, tasks=(TASK,), samples=False, arm={"options": options})
    message = _refused(tmp_path, "full", "retain")
    assert "'full' and 'retain' were asked tofu_novel_recall with other families (direct, cloze; cloze, comp" in message
    load.load({name: tmp_path / name for name in ("full", "same")})


def test_runs_about_some_rows_are_named(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(TASK,), limit=4)
    _recorded(tmp_path / "full", forget_rows="0-3")
    assert "some rows only (tofu_novel_recall with the option forget_rows), which the report" in _refused(
        tmp_path, "full"
    )


def test_a_p_value_of_a_part_is_no_verdict(tmp_path: Path) -> None:
    for name in ("retain", "unlearned"):
        made.write(tmp_path / name, tasks=("tofu_forget_quality",), limit=5)
        _recorded(tmp_path / name, of=40)
    [verdict] = verdicts(tables.build(load.load({name: tmp_path / name for name in ("retain", "unlearned")})))
    assert verdict.looks[0] == "unknown"
    assert "was computed on 5 of 40 rows, a subset, so it does not describe all rows" in verdict.looks[1]


def test_refuses_rows_with_another_question(tmp_path: Path) -> None:
    def other(task: str, sample: dict[str, Any]) -> None:
        sample["doc"]["question"] += " Please."

    made.write(tmp_path / "full", tasks=(TASK,))
    made.write(tmp_path / "retain", tasks=(TASK,), change=other)
    assert "is another question or answer" in _refused(tmp_path, "full", "retain")


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_names_file_and_line_of_a_killed_run(tmp_path: Path, kept: float) -> None:
    made.write(tmp_path / "full", tasks=(TASK,))
    [file] = tmp_path.rglob("samples_*.jsonl")
    content = file.read_bytes()
    place = int(len(content) * kept)
    file.write_bytes(content[:place])
    message = _refused(tmp_path, "full")
    line = content[:place].count(b"\n") + 1
    assert f"{file}, line {line}: not JSON" in message
    assert "killed" in message
    assert "evaluate that arm again" in message


def test_names_a_file_that_lost_whole_lines(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(TASK,))
    [file] = tmp_path.rglob("samples_*.jsonl")
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:7]), encoding="utf-8")
    assert f"{file} has 7 of 240 documents: the run was killed" in _refused(tmp_path, "full")
    file.write_text("")
    assert f"{file} is empty: the run was killed" in _refused(tmp_path, "full")


def test_refuses_what_holds_no_results(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no results" in _refused(tmp_path, "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results_1.json").write_text('{"results": {"mmlu": {}}}')
    assert "results of other tasks only" in _refused(tmp_path, "other")
    (tmp_path / "other" / "results_1.json").write_text('{"results": {"mmlu"')
    assert "results_1.json: not JSON" in _refused(tmp_path, "other")
    (tmp_path / "other" / "results_1.json").write_text("[]")
    assert "a list instead of a JSON object" in _refused(tmp_path, "other")


def test_refuses_results_of_several_models(tmp_path: Path) -> None:
    made.write(tmp_path / "a", tasks=(TASK,), model="one")
    made.write(tmp_path / "a", tasks=(TASK,), model="two")
    message = _refused(tmp_path, "a")
    assert f"holds results of several models (one in one/results_{made.TIME}.json; two in two/results_" in message


def test_arms_by_name_path_and_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "arms.yaml").write_text("retain: one\nmine: two\n")
    expected = {"retain": tmp_path / "one", "mine": tmp_path / "two"}
    assert load.parse_arms([str(tmp_path / "arms.yaml")]) == expected
    assert load.parse_arms([f"retain={tmp_path / 'one'}", f"mine={tmp_path / 'two'}"]) == expected
    assert set(load.parse_arms([str(tmp_path / "one"), str(tmp_path / "two")])) == {"one", "two"}
    with pytest.raises(OptionError, match=r"'one' twice"):
        load.parse_arms([str(tmp_path / "one"), f"one={tmp_path / 'two'}"])
    for text in (f"full={tmp_path / 'none'}", "a\0b", "full=" + "x" * 5000, "x" * 5000, "full=~nobody-of-that-name/x"):
        with pytest.raises(OptionError, match="does not exist") as error:
            load.parse_arms([text])
        assert len(str(error.value)) < 600
    with pytest.raises(OptionError, match="to both arms 'a' and 'b'"):
        load.parse_arms([f"a={tmp_path / 'one'}", f"b={tmp_path / 'two' / '..' / 'one'}"])
    (tmp_path / "one" / "samples_tofu_novel_recall_1.jsonl").write_text("")
    with pytest.raises(OptionError, match="is a samples file: name its directory"):
        load.parse_arms([str(tmp_path / "one" / "samples_tofu_novel_recall_1.jsonl")])
    for text in ("[1, 2]", "a: [b", "a: 1"):
        (tmp_path / "arms.yaml").write_text(text)
        with pytest.raises(OptionError, match=r"arms\.yaml"):
            load.parse_arms([str(tmp_path / "arms.yaml")])


def test_known_arms_come_in_their_usual_order(arms: Path) -> None:
    names = [arm.name for arm in _load(arms, "unlearned", "retain", "full", "base").arms]
    assert names == ["base", "full", "retain", "unlearned"]


# What is warned of.


def test_warns_of_other_prompts_and_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made.write(tmp_path / "full", tasks=(TASK,))
    made.write(
        tmp_path / "retain",
        tasks=(TASK,),
        prompt="other",
        arm={
            "backend": "vllm",
            "weights_dtype": "bfloat16",
            "batch_size": "auto",
            "versions": {"lm-eval": "0.4.14", "transformers": "5.20.0", "vllm": "0.32.0"},
        },
    )
    with caplog.at_level(logging.WARNING):
        results = _load(tmp_path, "full", "retain")
    text = "\n".join(results.warnings)
    assert "arm 'retain' was asked 240 of 240 documents with another prompt or other token ids than arm 'full'" in text
    for what in ("backend", "dtype", "batch size", "lm-eval version", "transformers version"):
        assert f"{what} differs" in text
    assert "vllm version differs" not in text  # the other arm has none
    assert "chat template differs" not in text
    assert all(warning in caplog.text for warning in results.warnings)
    written = render.write([f"full={tmp_path / 'full'}", f"retain={tmp_path / 'retain'}"], tmp_path / "report")
    assert "float32 in full; bfloat16 in retain" in written.html.read_text(encoding="utf-8")
    assert "float32 in full; bfloat16 in retain" in written.markdown.read_text(encoding="utf-8")


def test_no_warning_where_arms_agree(arms: Path) -> None:
    assert _load(arms).warnings == []


# A sweep.


def _sweep(folder: Path, **options: Any) -> Path:
    made.write(folder / "runs" / "run2", tasks=(TASK,), says=made.gold, **options)
    runs = [
        {"run": f"run{number}", "point": {"alpha": 2.0}, "forget_quality": 0.1 ** (40 * number)} for number in (1, 2)
    ]
    (folder / "selection.json").write_text(json.dumps({"selected": "run1", "runs": runs}))
    (folder / "sweep.json").write_text(json.dumps({"method": "npo", "training": {"epochs": 5, "alpha": 1.0}}))
    return folder


def test_a_sweeps_audit_must_fit_the_arms(tmp_path: Path) -> None:
    made.write(tmp_path / "unlearned", tasks=(TASK,))

    def points(folder: Path) -> tuple[Any, list[str]]:
        results = _load(tmp_path, "unlearned")
        return sweeps.sweep_points(folder, results)["runs"][1].get("leak_rate"), results.warnings

    assert points(_sweep(tmp_path / "fits")) == (1.0, [])
    with pytest.raises(OptionError, match=r"run run2 .* audited on forget05, the arms are on forget10"):
        points(_sweep(tmp_path / "split", split="forget05"))
    with pytest.raises(OptionError, match=rf"run run2 .* with {TASK} version 9, this is version"):
        points(_sweep(tmp_path / "version", version=9))
    rate, [warning] = points(_sweep(tmp_path / "fewer", limit=30))
    assert rate is None
    assert "sweep's run run2 is left out" in warning
    part = _sweep(tmp_path / "part")
    _changed(part / "runs", lambda content: content["configs"][TASK]["metadata"].update(forget_rows=[0]))
    assert points(part)[0] is None


def test_the_selected_runs_settings_are_said(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep")
    made.write(tmp_path / "a", tasks=(TASK,), model="sweep/runs/run1/model")
    made.write(tmp_path / "b", tasks=(TASK,), model="other")

    def said(*names: str) -> list[str]:
        results = _load(tmp_path, *names)
        return [each.selected for each in verdicts(tables.build(results, sweeps.sweep_points(sweep, results)))]

    settings = "method npo, epochs 5, alpha 2."
    assert said("a", "b") == [f"Selected of the sweep's 2 runs: {settings}", ""]
    assert said("b") == [f"The sweep's own selection, of the sweep's 2 runs: {settings}"]
    written = render.write([f"a={tmp_path / 'a'}"], tmp_path / "out", sweep=sweep)
    for file in (written.html, written.markdown):
        assert settings in file.read_text(encoding="utf-8")


def test_a_caption_says_where_p_is_drawn_elsewhere(tmp_path: Path) -> None:
    made.write(tmp_path / "retain", tasks=("tofu_forget_quality", TASK, "tofu_model_utility"))
    made.write(tmp_path / "unlearned", tasks=("tofu_forget_quality", TASK, "tofu_model_utility"))
    given = [f"{name}={tmp_path / name}" for name in ("retain", "unlearned")]
    text = render.write(given, tmp_path / "without").markdown.read_text(encoding="utf-8")
    assert "1e-30" not in text
    text = render.write(given, tmp_path / "with", sweep=_sweep(tmp_path / "sweep")).markdown.read_text(encoding="utf-8")
    assert text.count("Values of p below 1e-30 are drawn at 1e-30.") == 2


# The files.


@pytest.fixture(scope="module")
def report(arms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on everything: four arms, hostile text, a hostile name, a sweep, probe and relearning."""
    folder = tmp_path_factory.mktemp("report")

    def hostile(row: int, family: str) -> str:
        if row == 4:
            return HOSTILE + made.gold(row, family)
        if row == 6:
            return made.gold(row, family) + " long" * 20000
        return _known(row, family)

    made.write(folder / "hostile", says=hostile, model="models/hostile", ratios=lambda row: 1.05 + row / 100)
    _tools(folder / "hostile")
    sweep = folder / "sweep"
    runs = [
        {"rank": rank, "run": f"run{rank}", "forget_quality": 10.0**-rank, "ks_statistic": 0.1, "model_utility": 0.5}
        for rank in range(1, 6)
    ]
    made.write(sweep / "runs" / "run2", tasks=(TASK,), says=made.gold)
    (sweep / "selection.json").write_text(json.dumps({"selected": "run1", "runs": runs}))
    given = [f"{name}={arms / name}" for name in ("base", "full", "retain")]
    given.append(f"<b>$x_1$ | evil={folder / 'hostile'}")
    render.write(given, folder / "out", sweep=sweep)
    return folder / "out"


def test_figures_are_vector_and_picture_files(report: Path) -> None:
    names = {path.stem for path in (report / "figures").iterdir()}
    assert names == {
        *("overview", "truth-ratio", "families", "formats", "leak-at-k"),
        *("clues", "probe", "relearn", "trade-off", "against-leaks"),
    }
    for name in names:
        ElementTree.parse(report / "figures" / f"{name}.svg")
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "<image" not in "".join(path.read_text() for path in (report / "figures").glob("*.svg"))
    trade_off = (report / "figures" / "trade-off.svg").read_text()
    assert ">5 runs of the sweep<" in trade_off
    assert ">selected<" in trade_off
    assert "runs of the sweep" in (report / "figures" / "against-leaks.svg").read_text()


def test_the_ks_distance_is_drawn_with_its_value(report: Path) -> None:
    distance = ks_2samp([1.05 + row / 100 for row in range(120)], [1 + row / 100 for row in range(120)]).statistic
    assert f"D = {distance:.3f}" in (report / "figures" / "truth-ratio.svg").read_text()


def test_the_page_stands_alone(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page)
    assert not re.findall(r"url\((?!#)", page)
    assert "@import" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"""(?:href="|url\()#([^")]+)""", page)) <= set(ids)


def test_hostile_text_is_escaped_in_both_files(report: Path) -> None:
    page, markdown = ((report / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "&lt;script&gt;window.hacked" in page
    for text in (page, markdown):
        assert "<script>window.hacked" not in text
        assert "<b>$x" not in text
        assert not set("\u202e\u202c\x00\x07\x1b") & set(text)
        assert "{{ 7 * 7 }}" in text.replace("\\", "")  # a template would have said 49
    assert len(page) < 1_000_000  # the long response is not in it whole
    [line] = [line for line in markdown.splitlines() if "&lt;script&gt;" in line and "Response" in line]
    assert r"\*star\*" in line
    assert r"\[link\]" in line
    table = [line for line in markdown.splitlines() if line.startswith("| figure |")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in table)  # the bar in the name is no column


def test_markdown_has_the_figures_of_the_page(report: Path) -> None:
    page, markdown = ((report / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    lines = markdown.partition("## All arms")[2].splitlines()
    row = next(line for line in lines if line.startswith("| Novel-recall leak |"))
    assert "100.0 %" in row
    for number in re.findall(r"\d+\.\d %", row):
        assert number in page
    assert "![What each audit finds](figures/overview.svg)" in markdown


def test_figures_of_an_older_report_go_away(tmp_path: Path) -> None:
    made.write(tmp_path / "full", tasks=(TASK,))
    (tmp_path / "figures").mkdir(parents=True)
    (tmp_path / "figures" / "probe.svg").write_text("old")
    (tmp_path / "figures" / "mine.svg").write_text("not ours")
    render.write([str(tmp_path / "full")], tmp_path)
    assert not (tmp_path / "figures" / "probe.svg").exists()
    assert (tmp_path / "figures" / "mine.svg").exists()
    assert not list(tmp_path.rglob(".*"))  # nothing half-written is left


# The page in a browser.


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_has_no_error_no_request_and_no_overflow(
    open_page: chromium.Open, report: Path, width: int, dark: bool
) -> None:
    file = report / "report.html"
    page, problems, requests = open_page(file, width=width, dark=dark)
    assert problems == []
    assert requests == [file.resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.innerWidth") == width  # a phone zooms out instead of overflowing
    # What is wider than the page scrolls in a box of its own.
    wide = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
        && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(wide) == []
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(number) for number in re.findall(r"\d+", color)[:3]]
    assert (max(channels) < 80) is dark
    ink = page.evaluate("getComputedStyle(document.querySelector('svg.figure text')).fill")
    assert (min(int(number) for number in re.findall(r"\d+", ink)[:3]) > 150) is dark


def test_page_prints_without_overflow(open_page: chromium.Open, report: Path) -> None:
    page = open_page(report / "report.html", width=794, media="print").page
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_hostile_responses_stay_text(open_page: chromium.Open, report: Path) -> None:
    page = open_page(report / "report.html").page
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("main img, main script, main b script").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('#leak-cards .said')].some(e => e.textContent.includes('<script>window.hacked'))"
    )


def test_search_finds_leaks(open_page: chromium.Open, report: Path) -> None:
    page = open_page(report / "report.html").page
    shown = page.locator("#leak-cards > article:visible")
    everything = shown.count()
    assert 1 < everything <= leaks.SHOWN
    page.fill("#leak-search", "GNITIRW window.hacked")  # any case, any order, all words
    assert shown.count() == 1
    assert page.text_content("#leak-count") == f"1 of {everything}"
    page.fill("#leak-search", "nowhere to be found")
    assert shown.count() == 0


def _column(page: chromium.Page, column: int) -> list[str]:
    script = """column => [...document.querySelectorAll('#row-table tbody tr')].filter(r => !r.hidden)
        .map(r => r.cells[column].dataset.v ?? r.cells[column].textContent)"""
    cells: list[str] = page.evaluate(script, column)
    return cells


def test_rows_sort_by_mouse_and_by_keyboard(open_page: chromium.Open, report: Path) -> None:
    page, problems, _ = open_page(report / "report.html")
    assert _column(page, 0) == [str(row) for row in range(120)]
    header = page.locator("#row-table th button").nth(4)
    header.click()
    ratios = [float(value) for value in _column(page, 4)]
    assert ratios == sorted(ratios)
    # By keyboard: two fields on, the leaks of novel recall; Enter sorts downwards, again upwards.
    header.focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shares = [float(value) for value in _column(page, 6)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    sorts = "[...document.querySelectorAll('#row-table th')].map(e => e.getAttribute('aria-sort'))"
    assert page.evaluate(sorts) == ["none"] * 6 + ["descending"] + ["none"] * 4
    page.keyboard.press("Enter")
    assert [float(value) for value in _column(page, 6)] == sorted(shares)
    assert problems == []


def test_rows_are_those_of_the_chosen_arm_and_search(open_page: chromium.Open, report: Path) -> None:
    page = open_page(report / "report.html").page
    page.select_option("#row-arm", "1")
    assert _column(page, 6) == ["1.0"] * 120  # full knows all
    page.fill("#row-search", made.rows()[7]["question"])
    assert _column(page, 0) == ["7"]
    assert page.text_content("#row-count") == "1 of 120"


# The command.

_BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "lm_eval", "datasets"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from lm_eval_tofu import cli
"""


def _without_torch(*commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands, one after the other in one process that cannot import torch and what brings it."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "OMP_NUM_THREADS": "1"}
    code = f"{_BLOCKED}sys.exit(max(cli.main(command) for command in {list(commands)!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_report_and_card_need_no_torch(tmp_path: Path) -> None:
    names = ("retain", "unlearned")
    for name in names:
        made.write(tmp_path / name, says=_known, tasks=("tofu_forget_quality", TASK))
    given = [f"{name}={tmp_path / name}" for name in names]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    run = _without_torch(
        ["report", *given, "-o", str(tmp_path / "report")], ["card", str(tmp_path / "model"), "--results", *given]
    )
    assert run.returncode == 0, run.stderr
    written = [tmp_path / "report" / "report.html", tmp_path / "report" / "report.md", tmp_path / "model" / "README.md"]
    assert run.stdout.splitlines() == [str(path) for path in written]


def test_the_time_of_a_report_grows_no_faster_than_its_samples(tmp_path: Path) -> None:
    """Five arms of 4,000 samples each, ten times as many as beside; an idle machine needs some seconds for them."""
    seconds = {}
    for count in (400, 4000):
        folder = tmp_path / str(count)
        names = ("base", "full", "retain", "unlearned", "other")
        for name in names:
            # 40 rows with their facts, again and again, in 10 families.
            _large(folder / name, count, says=made.gold if name in ("full", "unlearned") else made.nothing)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = _without_torch(["report", *(str(folder / name) for name in names), "-o", str(folder / "report")])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run.returncode == 0, run.stderr
        # Of the processor: what else the machine does at the moment is not the report's fault.
        seconds[count] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Imports and drawing cost the same for both: the quotient is about 2 where all else is linear, and 10 and more
    # where it is quadratic.
    assert seconds[4000] < 8 * seconds[400]


def _large(folder: Path, count: int, says: made.Says) -> None:
    made.write(folder, says=says, tasks=(TASK,))
    [file] = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if '"direct"' in line]
    with file.open("w", encoding="utf-8") as output:
        for number in range(count):
            line = lines[number // 10 % 40]
            line["leak_rate"] |= {"index": number // 10, "family": f"family{number % 10}"}
            line["arguments"] = {"gen_args_0": {"arg_0": "x" * 1500}}  # as long as real ones
            output.write(json.dumps(line, ensure_ascii=False) + "\n")
    [results] = folder.rglob("results_*.json")
    content = json.loads(results.read_text())
    content["n-samples"][TASK]["effective"] = count
    content["results"][TASK] |= {f"leak_rate_family{number},none": 0.5 for number in range(10)}
    results.write_text(json.dumps(content))


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds no results" in error
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert cli.main(["report", str(tmp_path / "empty"), "-o", str(tmp_path / "file")]) == 2
    assert "is a file: name a directory" in capsys.readouterr().err
    made.write(tmp_path / "a", tasks=(TASK,))
    for content, message in ((None, "has no selection.json"), ("{", "not JSON"), ("{}", "lists no runs")):
        if content is not None:
            (tmp_path / "empty" / "selection.json").write_text(content)
        assert cli.main(["report", str(tmp_path / "a"), "--sweep", str(tmp_path / "empty")]) == 2
        assert message in capsys.readouterr().err


def test_figures_agree_with_what_lm_eval_aggregated(tiny_model: Path, tmp_path: Path) -> None:
    """The real thing: lm-eval's own files, and every rate and interval that both compute."""
    from lm_eval_tofu import evaluation

    options = {
        "tofu": "mini",
        "forget_split": "forget01",
        "best_of_n": 2,
        "families": "direct,cloze",
        "formats": "json",
    }
    evaluation.evaluate(
        tiny_model,
        tmp_path / "unlearned",
        tasks=("tofu_forget_quality", "tofu_novel_recall", "tofu_best_of_n", "tofu_chain_of_clues"),
        model_args={"dtype": "float32"},
        metadata=options,
        batch_size=32,
        device="cpu",
    )
    results = _load(tmp_path, "unlearned")
    built = tables.build(results)
    runs = results.arms[0].runs
    assert results.split == "forget01"
    for key, task, metric in (
        ("novel_recall", "tofu_novel_recall", "leak_rate"),
        ("best_of_n", "tofu_best_of_n", "prompt_leak"),
        ("chain_of_clues", "tofu_chain_of_clues", "leak_rate"),
    ):
        cell, metrics = _cell(built, key, "unlearned"), runs[task].metrics
        expected = [metrics[name] for name in (metric, f"{metric}_low", f"{metric}_high")]
        assert cell[:3] == pytest.approx(expected, nan_ok=True), key
    for family, cells in built.by_family["tofu_novel_recall"].items():
        assert cells["unlearned"].value == pytest.approx(runs["tofu_novel_recall"].metrics[f"leak_rate_{family}"])
    curve = built.leak_at_k["unlearned"]
    assert curve.y == pytest.approx([runs["tofu_best_of_n"].metrics[f"leak@{k:.0f}"] for k in curve.x])
    ratios = [record["truth_ratio"] for record in runs["tofu_forget_quality"].records]
    assert statistics.fmean(min(ratio, 1 / ratio) for ratio in ratios) == pytest.approx(
        runs["tofu_forget_quality"].metrics["truth_ratio"]
    )
    assert render.write([str(tmp_path / "unlearned")], tmp_path / "report").html.is_file()


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["Full", "retain"], "full"),
        (["full", "retained"], "retain"),
        (["full", "retain", "unlearn"], None),
        (["full", "Base", "retain"], "base"),
        (["full", "retain", "npo"], None),
        (["full", "full2", "retain", "unlearned", "unlearned-long"], None),
        (["full", "retain", "checkpoint-200"], None),
    ],
)
def test_a_name_near_a_roles_gets_a_hint(tmp_path: Path, names: list[str], meant: str | None) -> None:
    """With `Full=` the controls would be missing and the full arm be audited as an unlearned one."""
    for name in names:
        made.write(tmp_path / name, tasks=("tofu_answer_logprob",), model=f"models/{name}")
    found = [warning for warning in _load(tmp_path, *names).warnings if "counts as an unlearned model" in warning]
    assert len(found) == (meant is not None)
    assert all(f"did you mean {meant!r}" in warning for warning in found)
