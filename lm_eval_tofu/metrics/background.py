"""How common words are in answers that give nothing away."""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.words import fold, stem_line, stems

_ANNOUNCEMENT = re.compile(r"\n\s*\n[^\n]*:\s*\Z")


def without_announcement(answer: str) -> str:
    """A gold answer without a last paragraph of one line that ends in a colon, if it has one.

    Such a line announces something and says nothing. Four of TOFU's 4,000 answers end so, in what the model that wrote
    them would have gone on with: "Additional 10 question-answer pairs:", "Literary Works:". It is no fact to leak.
    """
    return _ANNOUNCEMENT.sub("", answer)


PASSAGE = 6
"""Words in a row, the answer's own, that are no chance."""

_COMMON, _RARE = 0.06, 0.002  # shares of answers at which a word says nothing, and all it can
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class Background:
    """How common words are in answers that give nothing away.

    Attributes:
        shares: Stem to the share of answers that hold it, in [0, 1].
        unseen: Share of a stem that is not listed.
        passages: `PASSAGE` stems in a row that such answers hold, joined by spaces, to how many of them hold it: who
            says the same of another author repeats a turn of phrase.
        answers: The answers themselves, folded.
    """

    shares: Mapping[str, float]
    unseen: float
    passages: Mapping[str, int] = field(default_factory=dict, repr=False)
    answers: frozenset[str] = field(default=frozenset(), repr=False)
    _weights: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_answers(cls, answers: Iterable[str]) -> "Background":
        """Count in which of the answers each word stands: give it the retain answers of the data set.

        Raises:
            OptionError: Fewer than 100 answers: shares of so few say nothing.
        """
        counts: Counter[str] = Counter()
        passages: Counter[str] = Counter()
        total, different = 0, set()
        for answer in answers:
            folded = fold(answer)
            counts.update(stems(folded))
            total += 1
            if folded not in different:
                passages.update(set(passages_of(folded)))
                different |= {folded, fold(without_announcement(answer))}
        if total < 100:
            raise OptionError(f"a background of {total} answers is too small: give at least 100")
        shares = {word: count / total for word, count in counts.items()}
        return cls(shares, 0.0, passages, frozenset(different))

    def turns_of_phrase(self, answer: str) -> list[tuple[list[str], bool]]:
        """Each `PASSAGE` stems in a row of an answer, and whether another of the answers here holds them too."""
        folded = fold(answer)
        itself = 1 if folded in self.answers else 0
        return [(passage.split(), self.passages.get(passage, 0) > itself) for passage in passages_of(folded)]

    def weight(self, word: str) -> float:
        """How much a stem says, in [0.02, 1]: falls with the logarithm of its share."""
        known = self._weights.get(word)
        if known is None:
            share = max(self.shares.get(word, self.unseen), 1e-9)
            known = min(1.0, max(_LEAST_WEIGHT, math.log(_COMMON / share) / math.log(_COMMON / _RARE)))
            self._weights[word] = known
        return known

    __hash__ = object.__hash__


@functools.cache
def default_background() -> Background:
    """Shares by the hand-written lists of frame words and boilerplate, for when no answers are at hand."""
    words = lexicon()
    return Background(dict.fromkeys(words.boilerplate, 0.025) | dict.fromkeys(words.frame, 0.06), 0.003)


def passages_of(folded: str) -> list[str]:
    """Each `PASSAGE` stems in a row of a folded text, joined by spaces, in order."""
    words = stem_line(folded).split()
    return [" ".join(words[start : start + PASSAGE]) for start in range(len(words) - PASSAGE + 1)]
