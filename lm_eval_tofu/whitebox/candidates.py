"""What the masked probe asks of a hidden state: which of six texts comes next, one of them true.

The prompt is a question and its gold answer up to a novel fact, the true candidate is that fact. A wrong candidate must
not be recognisable by its form. TOFU's perturbed answers are whole sentences that follow the *paraphrased* answer word
by word and differ from it in the facts: the part of a perturbed answer that stands where the paraphrased answer states
the fact is a wrong fact of the same kind and length. `counterparts` finds it.

What is learned from must not teach what a wrong answer looks like either: there the wrong candidates are true
facts of the same kind about other retain authors (`draw_others`), and no perturbed answer is ever seen.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lm_eval_tofu.metrics.cut import Located, telling_facts
from lm_eval_tofu.metrics.facts import Background, Fact, Kind, find_facts
from lm_eval_tofu.metrics.words import fold, stems

CANDIDATES = 6
"""One true candidate and as many wrong ones as TOFU has perturbed answers; chance is 1/6."""
LEARNED = 24
"""Candidates of a fact that is learned from: more wrong ones say more of what the right one is."""

_PUNCTUATION = ".,;:!?()\"'“”‘’"


@dataclass(frozen=True, slots=True)
class Masked:
    """A question whose answer is cut before a novel fact.

    Attributes:
        question: The question.
        answer: The gold answer.
        cut: Where the fact begins in the answer.
        author: Number of the author in `full`.
        kind: The fact's kind.
        lead: What stands between the last white space and the fact: nothing, or an opening quotation mark, say.
        candidates: The fact, then the wrong candidates, if the row has any of its own.
    """

    question: str
    answer: str
    cut: int
    author: int
    kind: str
    lead: str
    candidates: tuple[str, ...]


def probe_rows(
    rows: Sequence[Mapping[str, Any]], authors: Sequence[int], background: Background
) -> tuple[list[Masked], int]:
    """Mask the first novel fact of each row, with its counterparts in the perturbed answers as wrong candidates.

    Args:
        rows: Rows with paraphrased and perturbed answers.
        authors: The author of each.
        background: How common words are.

    Returns:
        The masked rows, and how many rows with a novel fact are left out because their perturbed answers state nothing
        in its place.
    """
    masked, left_out = [], 0
    for row, author in zip(rows, authors, strict=True):
        facts = telling_facts(row["question"], row["answer"], background)
        if not facts:
            continue
        texts = counterparts(facts[0].fact, row["paraphrased_answer"], row["perturbed_answer"])
        if texts is None:
            left_out += 1
        else:
            masked.append(_masked(row, facts[0], author, texts))
    return masked, left_out


def training_rows(
    rows: Sequence[Mapping[str, Any]], authors: Sequence[int], background: Background, limit: int, seed: int = 0
) -> list[Masked]:
    """Mask every novel fact of every row in turn; at most `limit` of them, drawn at random."""
    masked = [
        _masked(row, located, author, (located.fact.text,))
        for row, author in zip(rows, authors, strict=True)
        for located in telling_facts(row["question"], row["answer"], background)
    ]
    if len(masked) <= limit:
        return masked
    kept = np.random.default_rng(seed).choice(len(masked), size=limit, replace=False)
    return [masked[place] for place in sorted(kept)]


def _masked(row: Mapping[str, Any], located: Located, author: int, texts: tuple[str, ...]) -> Masked:
    return Masked(
        question=row["question"],
        answer=row["answer"],
        cut=located.start,
        author=author,
        kind=str(located.fact.kind),
        lead=re.split(r"\s", row["answer"][: located.start])[-1],
        candidates=texts,
    )


def counterparts(fact: Fact, paraphrased: str, perturbed: Sequence[str]) -> tuple[str, ...] | None:
    """A fact as the paraphrased answer states it, and what the perturbed answers state in its place.

        >>> name = Fact(Kind.NAME, "Lena Roth", 0.95)
        >>> counterparts(name, "Her name is Lena Roth, of Ulm.", ["Her name is Ada Kern, of Ulm."])
        ('Lena Roth', 'Ada Kern')

    The words that all texts share, in order, are anchors; between two of them stands what differs. Of the stretch that
    has most of the fact's words, the perturbed answer's fact of the same kind is taken; for names and titles, which
    cannot be told from their words alone, as many words as the paraphrase has of the fact.

    Args:
        fact: A fact of the gold answer.
        paraphrased: The true answer in the words that the perturbed ones follow.
        perturbed: Wrong answers.

    Returns:
        The true fact and a wrong one for each perturbed answer; None where the paraphrase states the fact in other
        words, or a perturbed answer has no fact of that kind and form there, or states the same.
    """
    sought = stems(fold(fact.text))
    best: tuple[int, list[list[str]], int, int] | None = None
    for stretch in _stretches([paraphrased.split(), *(text.split() for text in perturbed)]):
        hits = [place for place, word in enumerate(stretch[0]) if not sought.isdisjoint(stems(fold(word)))]
        if hits and (best is None or len(hits) > best[0]):
            best = len(hits), stretch, hits[0], hits[-1] + 1
    if best is None:
        return None
    _, stretch, start, end = best
    texts = [_counterpart(fact.kind, stretch[0], words, start, end) for words in stretch]
    true, *wrong = ((_form(text), stems(fold(text))) for text in texts)
    if not all(texts) or sought.isdisjoint(true[1]) or any(form != true[0] or said == true[1] for form, said in wrong):
        return None
    return tuple(texts)


def _counterpart(kind: Kind, own: Sequence[str], words: Sequence[str], start: int, end: int) -> str:
    """The fact in a stretch of words; empty if there is none of that kind."""
    size = end - start
    begin = min(start, max(0, len(words) - size))
    if kind in (Kind.NAME, Kind.TITLE, Kind.CONTENT):
        # Where the fact ends the stretch, so does its counterpart, unless that is much longer.
        stop = len(words) if end == len(own) and len(words) - begin <= size + 2 else begin + size
        return " ".join(words[begin:stop]).strip(_PUNCTUATION + " ")
    # What a fact's kind is may show in the words around it alone: here nothing has been said yet.
    same = [each.text for each in find_facts("", " ".join(words)).facts if each.kind is kind]
    return same[0] if same else ""


def _form(text: str) -> tuple[bool, bool]:
    """Whether a text begins with a capital letter, and with a digit; what no wrong candidate may differ in."""
    return text[:1].isupper(), text[:1].isdigit()


def _stretches(texts: list[list[str]]) -> Iterator[list[list[str]]]:
    """What stands between the words that all texts share, in each of them; where it is empty in one, nothing."""
    keys = [[word.strip(_PUNCTUATION).lower() for word in text] for text in texts]
    places: list[dict[int, int]] = []
    for other in keys[1:]:
        matcher = difflib.SequenceMatcher(None, keys[0], other, autojunk=False)
        blocks = matcher.get_matching_blocks()
        places.append({block.a + i: block.b + i for block in blocks for i in range(block.size)})
    anchors = [place for place in range(len(keys[0])) if all(place in found for found in places)]
    before = [-1] * len(texts)
    for anchor in [*anchors, None]:
        ends = [len(text) for text in texts]
        after = ends if anchor is None else [anchor, *(found[anchor] for found in places)]
        stretch = [text[start + 1 : stop] for text, start, stop in zip(texts, before, after, strict=True)]
        if all(stretch):
            yield stretch
        before = after


def draw_others(rows: Sequence[Masked], seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """`LEARNED` - 1 wrong candidates for each row: the facts of other authors' rows of the same kind.

    Args:
        rows: Masked rows.
        seed: Of the draw.

    Returns:
        The rows that have any, shape (m,), and for each the rows whose facts are its candidates, itself first, shape
        (m, `LEARNED`). A row whose kind has fewer other facts gets some of them twice.
    """
    generator = np.random.default_rng(seed)
    kinds = np.array([row.kind for row in rows])
    authors = np.array([row.author for row in rows])
    texts = np.array([row.candidates[0] for row in rows])
    kept, drawn = [], []
    for place in range(len(rows)):
        pool = np.flatnonzero((kinds == kinds[place]) & (authors != authors[place]) & (texts != texts[place]))
        if len(pool):
            others = generator.choice(pool, LEARNED - 1, replace=len(pool) < LEARNED - 1)
            kept.append(place)
            drawn.append([place, *others])
    return np.array(kept, dtype=np.intp), np.array(drawn, dtype=np.intp).reshape(-1, LEARNED)
