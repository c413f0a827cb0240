"""A gold answer as words, and the names among them: runs of capitalised words."""

from collections.abc import Sequence

from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.lexicon import Lexicon, Phrase, lexicon
from lm_eval_tofu.metrics.polarity import Word, read
from lm_eval_tofu.metrics.words import CLAUSE_MARKS, listed, singular, straighten

JOINS_NAME = frozenset(listed("of for the de del la le van von der den al bin ibn in"))
"""Small words that stand inside names."""


class Answer:
    """The words of an answer, and which of them are taken by a fact."""

    def __init__(self, answer: str, shown: frozenset[str]) -> None:
        """Read the words.

        Args:
            answer: The gold answer.
            shown: The stems of the question.
        """
        self.lexicon: Lexicon = lexicon()
        self.tables = (
            (Kind.PLACE, self.lexicon.places),
            (Kind.OCCUPATION, self.lexicon.occupations),
            (Kind.GENRE, self.lexicon.genres),
        )
        self.text = straighten(answer)
        self.words: list[Word] = read(self.text, shown)
        self.singulars = [singular(self.text[word.start : word.end].lower()) for word in self.words]
        self.taken = [word.stem in CLAUSE_MARKS for word in self.words]
        self.short = False

    def capitalised_runs(self) -> list[list[int]]:
        """The places of the words of each run of capitalised words that is no start of a sentence alone."""
        runs: list[list[int]] = []
        run: list[int] = []
        for place, word in enumerate([*self.words, None]):
            if word is not None and not self.taken[place]:
                raw = self.text[word.start : word.end]
                if raw[0].isupper() and (len(raw) > 1 or run) and word.stem not in self.lexicon.small:
                    run.append(place)
                    if raw.endswith("'s"):  # the possessor's name ends here
                        self._close(run, runs)
                        run = []
                    continue
                if run and raw in JOINS_NAME and self._joins(place):
                    run.append(place)
                    continue
            if run:
                self._close(run, runs)
                run = []
        return runs

    def _close(self, run: list[int], runs: list[list[int]]) -> None:
        while run and self.text[self.words[run[-1]].start].islower():
            run.pop()
        first = run[0]
        starts_sentence = first == 0 or self.words[first - 1].stem in ".!?\n"
        if len(run) > 1 and starts_sentence and self.is_common(self.words[first].stem):
            run, starts_sentence = run[1:], False  # "Winning the Booker Prize"
            while self.text[self.words[run[0]].start].islower():
                run = run[1:]
            first = run[0]
        alone = self.short and first + 1 < len(self.words) and self.words[first + 1].stem == ","  # "Tromsø, Norway"
        if len(run) > 1 or not starts_sentence or alone or (self.singulars[first],) in self.lexicon.places:
            runs.append(run)

    def _joins(self, place: int) -> bool:
        """Whether a small word stands inside a name: the next word, or the one after a second small word, is a name.

        "A Podiatrist in Havana" is no name.
        """
        if self.singulars[place] == "in" and self._is_place(place + 1):
            return False
        for other in (place + 1, place + 2):
            if other >= len(self.words) or self.taken[other]:
                return False
            raw = self.text[self.words[other].start : self.words[other].end]
            if raw[0].isupper():
                return True
            if raw not in JOINS_NAME:
                return False
        return False

    def _is_place(self, place: int) -> bool:
        """Whether the name of a place begins here."""
        return any(
            kind == Kind.PLACE and phrase == tuple(self.singulars[place : place + len(phrase)])
            for first in self.singulars[place : place + 1]
            for phrase, kind, _ in self.lexicon.by_first_word.get(first, ())
        )

    def lexical(self, run: Sequence[int]) -> tuple[Kind, tuple[Phrase, ...]] | None:
        """The kind of a capitalised run that ends in an occupation, a genre or a place."""
        names = tuple(self.singulars[place] for place in run)
        if len(run) == 1 and (slip := self.lexicon.place_stems.get(self.words[run[0]].stem)):
            return Kind.PLACE, slip  # "Irani", "Algier's": no more than the place they come from
        for size in range(min(len(names), self.lexicon.longest), 0, -1):
            for kind, table in self.tables:
                aliases = table.get(names[-size:])
                if aliases is not None and (size == len(names) or kind is not Kind.GENRE):
                    return kind, aliases if size == len(names) else ()
        return None

    def is_common(self, word: str) -> bool:
        """Whether a word has a life outside names."""
        words = self.lexicon
        return word in words.frame or word in words.boilerplate or word in words.synonyms
