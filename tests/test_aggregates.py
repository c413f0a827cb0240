"""Overall scores: by hand, and against the table that the formulas' authors publish."""

import math

import pytest

from lm_eval_tofu.metrics import aggregates

# Rows of gnueaj/unlearning-depth-score, docs/data/method_results.json (commit fc31639): 1 - ES, 1 - EM, 1 - paraphrase
# probability, 1 - truth ratio; s of LOSS, ZLib, Min-k, Min-k++; UDS; model utility, fluency; and what they make of it:
# memorisation, privacy without and with UDS, utility, utility as a share of the full model's, overall.
PUBLISHED = {
    "retain": (
        (0.9410334254, 0.4098726256, 0.9449263802, 0.4329089433),
        (1.0, 1.0, 1.0, 1.0),
        1.0,
        (0.5905297106, 0.8994657691),
        (0.5821838393, 1.0, 1.0, 0.7129702976, 1.0, 0.8069569395),
    ),
    "simnpo_lr5e5_b45_a1_d1_g025_ep5": (
        (0.9148298071, 0.3631058431, 0.9598322975, 0.4249607513),
        (0.8455422592, 0.8492542505, 0.7681124684, 0.5268589294),
        0.7924085653,
        (0.5631432912, 0.9007425448),
        (0.5523241085, 0.7194101447, 0.7541469845, 0.69301459, 0.9728301119, 0.7203812877),
    ),
    "simnpo_lr5e5_b45_a1_d1_g025_ep10": (
        (0.9366302964, 0.3702834451, 0.9660440023, 0.4231027247),
        (0.7786731833, 0.8064016414, 0.6935175293, 0.4975163364),
        0.8034415336,
        (0.5813936448, 0.8911001116),
        (0.5581188163, 0.6693192303, 0.7302732148, 0.7036769284, 0.9886390258, 0.7189804482),
    ),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_table(model: str) -> None:
    forgotten, similarities, uds, (model_utility, fluency), expected = PUBLISHED[model]
    memorisation = aggregates.memorisation(*(1 - each for each in forgotten))
    privacy = aggregates.privacy(similarities, uds)
    utility = aggregates.utility(model_utility, fluency)
    full = expected[3] / expected[4]
    found = (
        memorisation,
        aggregates.privacy(similarities),
        privacy,
        utility,
        aggregates.utility(model_utility, fluency, full),
        aggregates.overall(memorisation, privacy, utility / full),
    )
    assert found == pytest.approx(expected, abs=1e-9)


def test_harmonic_means_by_hand() -> None:
    assert aggregates.harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert aggregates.harmonic_mean([1.0, 0.0]) == 0
    assert aggregates.harmonic_mean([1.0, -0.1]) == 0
    assert math.isnan(aggregates.harmonic_mean([]))
    assert math.isnan(aggregates.harmonic_mean([1.0, math.nan]))
    assert aggregates.memorisation(1.0, 0.5, 0.5, 0.5) == 0
    assert aggregates.memorisation(0.0, 0.5, 0.0, 0.5) == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("auc", "retain", "expected"), [(0.4, 0.4, 1.0), (0.6, 0.4, 0.5), (0.2, 0.4, 0.5), (1.0, 0.4, 0.0), (0.0, 1.0, 0.0)]
)
def test_membership_similarity(auc: float, retain: float, expected: float) -> None:
    assert aggregates.membership_similarity(auc, retain) == pytest.approx(expected)


def test_without_a_retain_auc_there_is_no_similarity() -> None:
    assert math.isnan(aggregates.membership_similarity(0.5, 0.0))
    assert math.isnan(aggregates.membership_similarity(0.5, math.nan))
    assert math.isnan(aggregates.privacy([0.5, math.nan]))


def test_utility_without_fluency() -> None:
    assert aggregates.utility(0.5) == 0.5
    assert aggregates.utility(0.5, full=0.8) == 0.625
    assert aggregates.utility(0.5, 0.5) == 0.5
    assert math.isnan(aggregates.utility(0.5, full=0.0))


class TestEntropy:
    def test_by_hand(self) -> None:
        """Six words that differ: five bigrams and four trigrams, each once: (2/3 log2 5 + 4/3 log2 4) / 2."""
        expected = (2 / 3 * math.log2(5) + 4 / 3 * 2) / 2
        assert aggregates.n_gram_entropy("one two three four five six") == pytest.approx(expected)

    def test_repetition(self) -> None:
        """a b a b a: bigrams ab 2, ba 2: 1 bit; trigrams aba 2, bab 1: log2 3 - 2/3."""
        expected = (2 / 3 * 1 + 4 / 3 * (math.log2(3) - 2 / 3)) / 2
        assert aggregates.n_gram_entropy("a b a b a") == pytest.approx(expected)
        assert aggregates.n_gram_entropy("no no no no no no") == 0

    def test_punctuation_is_a_word(self) -> None:
        """Three words: two bigrams, 1 bit, and one trigram."""
        assert aggregates.n_gram_entropy("Oslo, Norway") == pytest.approx(1 / 3)

    @pytest.mark.parametrize("text", ["", "Oslo", "in Oslo"])
    def test_too_short(self, text: str) -> None:
        assert math.isnan(aggregates.n_gram_entropy(text))
