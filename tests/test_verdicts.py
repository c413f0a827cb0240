"""What the report says first, from tables made by hand: which figures its sentences have, and when it says what."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_tables import measured, run, tables

from lm_eval_tofu.report.arms import Arm, Sample
from lm_eval_tofu.report.tables import Measured
from lm_eval_tofu.report.verdicts import Verdict, verdicts

NAN = math.nan
SAMPLES = {("forget", 0, ""): Sample({}, "Who?", "Nobody.", [], "", None)}


def arm(name: str, *runs: Any) -> Arm:
    return Arm(name, Path(name), {each.task: each for each in runs})


def verdict(*arms: str | Arm, **given: Any) -> Verdict:
    [found] = verdicts(tables(*arms, **given))
    return found


def audit(value: float, excess: float = NAN, adjusted: float = NAN, **given: Any) -> Measured:
    """A cell whose p value differs from its corrected one."""
    return Measured(value, excess=excess, p_value=adjusted / 3, adjusted=adjusted, **{"authors": 20, **given})


class TestLooks:
    RUN = run("tofu_forget_quality", documents=400, of=400, samples=SAMPLES)

    def looks(self, p: float, *, paired: float = NAN, d: float = 0.035, run_of: Any = RUN) -> tuple[str, str]:
        return verdict(
            arm("unlearned", run_of),
            row_forget_quality={"unlearned": measured(p)},
            row_ks_statistic={"unlearned": measured(d)},
            row_forget_quality_paired={"unlearned": measured(paired)},
        ).looks

    def test_figures_of_the_sentence(self) -> None:
        said, words = self.looks(0.967, paired=0.25)
        assert said == "yes"
        assert "Forget quality 0.967 (D = 0.035, n = 400, log10 p = -0.01): " in words
        assert "cannot tell" in words
        assert "D has p = 0.250, which does not tell the two arms apart" in words
        said, words = self.looks(1e-5, paired=0.049)
        assert said == "no"
        assert "Forget quality 1.0e-05 (D = 0.035, n = 400, log10 p = -5.00): " in words
        assert "cannot tell" not in words
        assert "p = 0.049, which tells the two arms apart" in words
        assert "which does not tell" in self.looks(0.5, paired=0.05)[1]

    def test_what_is_not_known_is_left_out(self) -> None:
        words = self.looks(0.5, d=NAN, run_of=run("tofu_forget_quality", samples=SAMPLES))[1]
        assert "Forget quality 0.500 (log10 p = -0.30): " in words
        assert "Paired" not in words

    def test_a_p_value_of_zero(self) -> None:
        said, words = self.looks(0.0)
        assert said == "no"
        assert "log10 p below -300" in words

    def test_a_part_of_the_rows(self) -> None:
        said, words = self.looks(0.9, run_of=run("tofu_forget_quality", documents=40, of=400, samples=SAMPLES))
        assert said == "unknown"
        assert "was computed on 40 of 400 rows" in words

    def test_why_it_has_no_value(self) -> None:
        def why(*arms: str | Arm, evaluated: bool = True) -> str:
            cell = measured(NAN) if evaluated else None
            said, words = verdict(*arms, row_forget_quality={"unlearned": cell}).looks
            assert said == "unknown"
            return words

        full_of, empty = self.RUN, run("tofu_forget_quality")
        ours, retain = arm("unlearned", full_of), arm("retain", full_of)
        assert "it was not evaluated" in why("retain", "unlearned", evaluated=False)
        assert "there is no retain arm" in why(ours)
        assert "the retain arm has no run of tofu_forget_quality" in why("retain", ours)
        assert "no samples of retain to" in why(arm("retain", empty), ours)
        assert "no samples of unlearned and retain to" in why(arm("retain", empty), arm("unlearned", empty))
        assert "a truth ratio is no number" in why(retain, ours)


class TestKnows:
    def knows(self, *runs: Any, **rows: Measured | None) -> tuple[str, str]:
        cells = {f"row_{key}": {"unlearned": cell} for key, cell in rows.items()}
        return verdict("retain", arm("unlearned", *runs), **cells).knows

    def test_nothing_was_asked_or_nothing_came_out(self) -> None:
        said, words = self.knows(novel_recall=None)
        assert (said, "was run on this arm" in words) == ("unknown", True)
        said, words = self.knows(novel_recall=audit(NAN), relearn=audit(NAN))
        assert (said, "has a figure" in words) == ("unknown", True)
        # The benchmark's own figures are no audits.
        words = self.knows(run("tofu_forget_quality"), forget_quality=audit(0.5, 0.4, 0.01))[1]
        assert "was run on this arm" in words

    def test_the_audits_that_carry_a_yes_the_surest_first(self) -> None:
        said, words = self.knows(
            novel_recall=audit(0.31, 0.25, 0.04),
            format_shift=audit(0.4, 0.35, 0.051),
            relearn=audit(7.6, 6.8, 0.002),
            probe=audit(0.7, -0.1, 1.0),
        )
        assert said == "yes"
        assert words.startswith("2 of 4 audits found more than in the retain arm, at a level of 5% ")
        assert words.endswith(
            ": Relearn, as measured, +6.8 points (p = 0.002); Novel recall, as measured, +25.0 points (p = 0.040)."
        )

    def test_one_audit_of_one(self) -> None:
        assert self.knows(novel_recall=audit(0.3, 0.2, 0.01))[1].startswith("The one audit that could be tested found")
        assert self.knows(novel_recall=audit(0.3, 0.2, 0.2))[1].startswith("The one audit that could be tested has not")
        assert self.knows(novel_recall=audit(0.3, 0.2, 0.01), probe=audit(0.3, 0.2, 0.2))[1].startswith("One of 2")

    def test_a_no_says_what_would_have_been_found_and_what_was_not_compared(self) -> None:
        said, words = self.knows(
            novel_recall=audit(0.31, 0.02, 0.4, detectable=0.123),
            relearn=audit(7.6, 0.5, 0.6, detectable=4.56),
            probe=audit(0.4, 0.1, 0.07, detectable=NAN),
            recognition=audit(0.234),
        )
        assert said == "no"
        assert words.startswith("None of 3 audits found more")
        sizes = "Novel recall, as measured +12.3 points; Relearn, as measured +4.6 points; Probe, as measured none."
        assert f"80 % power (assumed correlation 0.1 within an author): {sizes}" in words
        assert words.endswith("Nothing of the retain arm to compare with: Recognition, as measured (23.4 %).")
        assert "Nothing of the retain arm" not in self.knows(novel_recall=audit(0.31, 0.02, 0.4))[1]

    def test_an_audit_that_misses_what_the_full_arm_knows_shows_nothing(self) -> None:
        ours, found, missed = audit(0.31, 0.02, 0.4, detectable=0.123), audit(0.9, 0.6, 0.05), audit(0.31, 0.02, 0.051)

        def words(name: str = "unlearned", **full: Measured | None) -> str:
            return verdict(
                *("retain", *dict.fromkeys(("full", name))),
                row_novel_recall={"full": full.get("novel_recall", ours), name: ours},
                row_probe={"full": full.get("probe", ours), name: ours},
            ).knows[1]

        size = "as measured +12.3 points"
        blind = "Found nothing in the full arm either, which was trained on these answers"
        assert blind not in words(novel_recall=found, probe=found)
        assert blind not in words(novel_recall=None, probe=audit(0.31, 0.02))  # not evaluated, or without a test
        one = words(novel_recall=found, probe=missed)
        assert f"within an author): Novel recall, {size}. {blind}, and therefore show nothing: Probe, " in one
        both = words(novel_recall=missed, probe=missed)
        assert "80 % power" not in both
        assert "Novel recall, as measured (+2.0 points); Probe, as measured (+2.0 points)" in both
        assert blind not in words("full", novel_recall=missed, probe=missed)  # no other arm was given

    def test_the_largest_rate_where_nothing_can_be_compared(self) -> None:
        said, words = self.knows(novel_recall=audit(0.31), probe=audit(0.62), relearn=audit(9.9))
        assert said == "unknown"
        assert words.startswith("Probe, as measured: 62.0 %. Without the same audit on a retain arm")

    def test_the_largest_untested_excess_of_points_and_shares(self) -> None:
        """An excess of 30 points of relearning is less than one of 35 of a rate."""
        said, words = self.knows(
            novel_recall=audit(0.5, 0.35), relearn=audit(40.0, 30.0), format_shift=audit(0.1, 0.01, 0.5)
        )
        assert said == "unknown"
        assert "cannot be tested: Novel recall, as measured, 50.0 %, +35.0 points." in words
        assert "cannot be tested: Relearn" in self.knows(novel_recall=audit(0.5, 0.35), relearn=audit(40.0, 36.0))[1]

    def test_what_is_not_above_the_retain_arm_leaves_nothing_open(self) -> None:
        assert self.knows(novel_recall=audit(0.1, 0.0), format_shift=audit(0.1, 0.01, 0.5))[0] == "no"
        assert self.knows(novel_recall=audit(0.1, 0.001), format_shift=audit(0.1, 0.01, 0.5))[0] == "unknown"
        assert self.knows(novel_recall=audit(0.1, -0.1))[0] == "unknown"

    @pytest.mark.parametrize(
        ("key", "authors", "samples", "reason"),
        [
            ("novel_recall", 4, SAMPLES, "4 authors are too few for a test: it takes 5"),
            ("relearn", 1, None, "1 author is too few for a test"),
            ("relearn", 5, None, "Its results state no test."),
            ("probe", 0, None, "Its results state no test."),
            ("novel_recall", 5, SAMPLES, "needs samples of both arms"),
            ("novel_recall", 0, SAMPLES, "needs samples of both arms"),
            ("novel_recall", 0, None, "Without samples (--log_samples) it cannot be tested."),
        ],
    )
    def test_why_there_is_no_test(self, key: str, authors: int, samples: Any, reason: str) -> None:
        audited = run("tofu_novel_recall", samples=samples)
        assert reason in self.knows(audited, **{key: audit(0.3, 0.2, authors=authors)})[1]


class TestUseful:
    def useful(self, own: float, full: float | None, name: str = "unlearned") -> tuple[str, str]:
        cells = {name: measured(own), **({} if full is None else {"full": measured(full)})}
        return verdict(name, row_model_utility=cells).useful

    def test_figures_of_the_sentence(self) -> None:
        assert self.useful(0.33, 0.6) == ("partly", "Model utility 0.330, 55 % of the full arm's 0.600.")
        assert self.useful(0.45, 0.5)[0] == "yes"
        assert self.useful(0.44, 0.5)[0] == "partly"
        assert self.useful(0.25, 0.5)[0] == "partly"
        assert self.useful(0.24, 0.5)[0] == "no"

    def test_without_a_figure_or_another_full_arm(self) -> None:
        assert self.useful(NAN, 0.6)[0] == "unknown"
        for full in (None, 0.0, NAN):
            said, words = self.useful(0.33, full)
            assert said == "unknown"
            assert "Model utility 0.330." in words
        assert verdict("full", row_model_utility={"full": measured(0.6)}).useful[0] == "unknown"


class TestAlarms:
    RETAIN = arm("retain")

    def test_none(self) -> None:
        runs = [run(task, documents=400, of=400) for task in ("tofu_forget_quality", "tofu_recognition")]
        assert verdict("retain", arm("unlearned", *runs)).alarms == []
        assert verdict("retain", arm("unlearned", run("tofu_recognition", of=400))).alarms == []

    def test_the_full_arm_as_a_control(self) -> None:
        [alarm] = verdict("full", "retain").alarms
        assert "as a control" in alarm

    def test_no_retain_arm(self) -> None:
        [alarm] = verdict("full", "unlearned").alarms
        assert alarm.startswith("No retain arm")

    def test_a_part_of_the_documents(self) -> None:
        runs = [run("tofu_novel_recall", documents=10, of=90), run("tofu_forget_quality", documents=4, of=40)]
        whole = run("tofu_recognition", documents=40, of=40)
        [alarm] = verdict("retain", arm("unlearned", *runs, whole)).alarms
        assert alarm.startswith("Only 10 of 90 documents of novel recall, 4 of 40 documents of forget quality were")

    @pytest.mark.parametrize(("authors", "text"), [(1, "Only 1 forget author:"), (4, "Only 4 forget authors:")])
    def test_few_authors(self, authors: int, text: str) -> None:
        [alarm] = verdict("retain", "unlearned", authors=authors).alarms
        assert alarm.startswith(text)
        assert verdict("retain", "unlearned", authors=0).alarms == []
        assert verdict("retain", "unlearned", authors=5).alarms == []

    @pytest.mark.parametrize(
        ("metric", "limit", "part"),
        [
            ("generations_empty", 0.1, "are empty"),
            ("generations_repetitive", 0.1, "are loops"),
            ("generations_cut", 0.9, "reach the token limit"),
            ("reasoning_unfinished", 0.1, "are reasoning that never ended"),
        ],
    )
    def test_answers_of_a_broken_model(self, metric: str, limit: float, part: str) -> None:
        def alarms(share: float, task: str = "tofu_forget_quality") -> list[str]:
            return verdict("retain", arm("unlearned", run(task, metrics={metric: share}))).alarms

        [alarm] = alarms(limit)
        assert alarm.startswith(f"{100 * limit:.0f} % of its answers to the forgotten questions {part}")
        assert alarms(limit - 0.001) == []
        assert len(alarms(limit, "tofu_novel_recall")) == 1
        assert alarms(limit, "tofu_model_utility") == []

    def test_choices_that_choose_nothing(self) -> None:
        def alarms(share: float) -> list[str]:
            return verdict("retain", arm("unlearned", run("tofu_recognition", metrics={"no_choice": share}))).alarms

        [alarm] = alarms(0.5)
        assert alarm.startswith("50 % of its answers to the recognition questions")
        assert alarms(0.49) == []


class TestSelected:
    SWEEP: Mapping[str, Any] = {
        "runs": [{}, {}, {}],
        "selected": "run-7",
        "settings": {"epochs": 5, "learning_rate": 5e-5, "loss": "npo"},
    }

    def test_the_arm_at_the_runs_place(self) -> None:
        found = verdicts(
            tables(
                arm("mine", run("tofu_novel_recall", model="sweep/run-7/checkpoint")),
                arm("other", run("tofu_novel_recall", model="sweep/run-77/checkpoint")),
                sweep=self.SWEEP,
            )
        )
        settings = "epochs 5, learning rate 5e-05, loss npo"
        assert [each.selected for each in found] == [f"Selected of the sweep's 3 runs: {settings}.", ""]

    def test_the_only_arm(self) -> None:
        assert verdict("retain", "mine", sweep=self.SWEEP).selected.startswith("The sweep's own selection, of the")
        assert verdict("retain", "mine", sweep={"runs": [{}]}).selected == ""
        assert verdict("retain", "mine").selected == ""


def test_a_verdict_for_each_audited_arm() -> None:
    cells = {"mine": audit(0.3, 0.2, 0.01), "other": audit(0.1, 0.01, 0.5), "full": audit(0.9, 0.8, 0.001)}
    found = verdicts(tables("base", "full", "retain", "mine", "other", row_novel_recall=cells))
    assert [(each.arm, each.knows[0]) for each in found] == [("mine", "yes"), ("other", "no")]
