"""The measured error rate: what the documents promise, and that the benchmark measures the report's own verdict."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lm_eval_tofu.report.verdicts import FALSE_YES, LEVEL

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import verdict_level  # noqa: E402
from verdict_level import Setting  # noqa: E402

MEASURED = json.loads((ROOT / "benchmarks" / "verdict_level.json").read_text(encoding="utf-8"))


def test_promises_are_kept_and_the_footer_states_the_measured_rate() -> None:
    assert verdict_level.kept(MEASURED)
    assert verdict_level.worst(MEASURED) == FALSE_YES
    assert f"at most {FALSE_YES:.1%}" in LEVEL


def test_the_document_shows_what_was_measured() -> None:
    document = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    assert verdict_level.document_text(MEASURED) in document


def test_drawn_rows_have_the_rate_and_the_correlation_that_was_asked_for() -> None:
    """Over 4,000 authors; of two rows of one author, both leak with probability r^2 + correlation * r (1 - r)."""
    setting = Setting(4000, 0.2, 0.3)
    leaks = verdict_level.draw(setting, np.random.default_rng(0))
    both = (leaks[:, 0] & leaks[:, 1]).mean()
    # Five standard errors: of a mean of 4,000 authors' rates, and of 4,000 pairs.
    assert leaks.mean() == pytest.approx(0.2, abs=5 * (0.2 * 0.8 * (0.3 + 0.7 / 12) / 4000) ** 0.5)
    assert both == pytest.approx(0.2**2 + 0.3 * 0.16, abs=5 * (0.088 * 0.912 / 4000) ** 0.5)
    more = verdict_level.draw(setting, np.random.default_rng(0), excess=0.1)
    assert more.mean() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 * (0.4 + 0.6 / 12) / 4000) ** 0.5)


@pytest.mark.parametrize(("excess", "word"), [(0.0, "no"), (0.75, "yes")])
def test_the_reports_word_is_that_of_its_tests(tmp_path: Path, excess: float, word: str) -> None:
    setting, generator = Setting(10, 0.05, 0.1), np.random.default_rng(5)
    names = (*verdict_level.AUDITS, *verdict_level.WHITE_BOX)
    retain = {name: verdict_level.draw(setting, generator) for name in names}
    audited = {name: verdict_level.draw(setting, generator, excess) if excess else retain[name] for name in names}
    assert verdict_level.headline(tmp_path / "arms", audited, retain) == word
    assert verdict_level.by_t(audited, retain) is (word == "yes")


def test_sign_flips_find_nothing_in_five_authors_and_seven_audits() -> None:
    """No p value is below 1/32, and Holm's first step takes it times seven."""
    nothing, everything = np.zeros((5, 12), dtype=bool), np.ones((5, 12), dtype=bool)
    names = (*verdict_level.AUDITS, *verdict_level.WHITE_BOX)
    arms = dict.fromkeys(names, everything), dict.fromkeys(names, nothing)
    assert not verdict_level.by_sign_flips(*arms)
    assert verdict_level.by_t(*arms)
    assert verdict_level.by_bootstrap(*arms)
    assert not verdict_level.by_bootstrap(arms[1], arms[1])
