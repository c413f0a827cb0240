"""The rows of the masked probe: a question, its answer up to a novel fact, and six candidates for that fact.

The true candidate is the masked fact. A wrong candidate must not be recognisable by its form. TOFU's perturbed answers
are whole sentences that follow the *paraphrased* answer word by word and differ from it in the facts: the part of a
perturbed answer in the position of the paraphrased answer's fact is a wrong fact of the same kind and length.
`counterparts` finds it.

The training rows must not teach what a wrong answer looks like either: their wrong candidates are true facts of the
same kind about other retain authors (`draw_others`), and no perturbed answer is among them.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import DataError
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.cut import Located, telling_facts
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.reader import find_facts
from lm_eval_tofu.metrics.words import fold, stems

CANDIDATES = 6
"""One true candidate and as many wrong ones as TOFU has perturbed answers; chance is 1/6."""
LEARNED = 24
"""Candidates of a training row: more wrong ones make the right one better determined."""

_PUNCTUATION = ".,;:!?()\"'“”‘’"


@dataclass(frozen=True, slots=True)
class Masked:
    """A question whose answer is cut before a novel fact."""

    question: str
    answer: str  # the gold answer
    cut: int  # character offset of the fact in the answer
    author: int  # number of the author in `full`
    kind: str  # the fact's kind
    lead: str  # between the last white space and the fact, such as an opening quotation mark; usually empty
    candidates: tuple[str, ...]  # the fact, then the wrong candidates, if the row has any of its own


class Data(NamedTuple):
    """The rows that a probe is fitted and tested on."""

    training: list[Masked]  # facts of retain authors; each row's own fact is its only candidate
    tested: list[Masked]  # rows of forget authors with six candidates
    perturbed: list[Masked]  # rows of retain authors with six candidates, for a control
    left_out: int  # forget rows with a novel fact and no counterpart of it in the perturbed answers
    without_fact: int  # forget rows without a novel fact
    fingerprints: dict[str, str]  # of the configurations that were read

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Every different candidate, as lead and text."""
        rows = (*self.training, *self.tested, *self.perturbed)
        return list(dict.fromkeys((row.lead, text) for row in rows for text in row.candidates))


def read_data(source: tofu.Source, forget_split: str, facts: int, retain_rows: Sequence[int] | None = None) -> Data:
    """Mask the rows of the forget split, to test on, and those of the retain split, to learn from.

    Args:
        source: Where the data comes from.
        forget_split: A forget split.
        facts: Facts to learn from, at most.
        retain_rows: Rows of the retain split to learn from; None: all.

    Raises:
        DataError: The data cannot be read, or leave nothing to learn from or to test.
        OptionError: The retain split has fewer rows.
    """
    retain = tofu.retain_split(forget_split)
    names = ("full", retain, f"{forget_split}_perturbed", "retain_perturbed")
    full, kept, forget, perturbed = (tofu.load(name, source) for name in names)
    author_of = {row["question"]: index // tofu.ROWS_PER_AUTHOR for index, row in enumerate(full)}
    for name, rows in zip(names[1:], (kept, forget, perturbed), strict=True):
        unknown = next((row["question"] for row in rows if row["question"] not in author_of), None)
        if unknown is not None:
            raise DataError(f"{source}: {name} asks {unknown[:60]!r}, which full does not: fetch {tofu.HUB_ID} anew")
    background = Background.from_answers(row["answer"] for row in kept)
    # Not only the tested rows' authors: a cut data set may have left half an author in the retain split.
    forgotten = {author_of[row["question"]] for row in forget}
    if retain_rows is not None:
        tofu.check_row_numbers("--retain-rows", retain_rows, retain, len(kept))
        kept = [kept[number] for number in retain_rows]
    kept, others = ([row for row in rows if author_of[row["question"]] not in forgotten] for rows in (kept, perturbed))

    def authors(rows: Sequence[Mapping[str, Any]]) -> list[int]:
        return [author_of[row["question"]] for row in rows]

    tested, left_out = probe_rows(forget, authors(forget), background)
    if not tested:
        raise DataError(
            f"{source}: no row of {forget_split}_perturbed has a novel fact and {CANDIDATES - 1} perturbed answers "
            "that state another one in its place: the probe has nothing to choose from; use TOFU's own files"
        )
    training = training_rows(kept, authors(kept), background, facts)
    if len({row.author for row in training}) < 2:
        raise DataError(
            f"{source}: {retain} leaves fewer than two authors with facts to learn from: no folds of authors are "
            "possible; use TOFU's own files, or more --retain-rows"
        )
    control, _ = probe_rows(others, authors(others), background)
    fingerprints = {name: tofu.fingerprint(source, name) for name in names}
    return Data(training, tested, control, left_out, len(forget) - len(tested) - left_out, fingerprints)


def probe_rows(
    rows: Sequence[Mapping[str, Any]], authors: Sequence[int], background: Background
) -> tuple[list[Masked], int]:
    """Mask the first novel fact of each row, with its counterparts in the perturbed answers as wrong candidates.

    Args:
        rows: Rows with paraphrased and perturbed answers.
        authors: The author of each.
        background: How common words are.

    Returns:
        The masked rows that have `CANDIDATES` candidates, and how many rows with a novel fact are left out because
        their perturbed answers state nothing in its place.
    """
    masked, left_out = [], 0
    for row, author in zip(rows, authors, strict=True):
        facts = telling_facts(row["question"], row["answer"], background)
        if not facts:
            continue
        texts = counterparts(facts[0].fact, row["paraphrased_answer"], row["perturbed_answer"])
        if texts is None:
            left_out += 1
        elif len(texts) == CANDIDATES:
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
    return [masked[index] for index in sorted(kept)]


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
    """What the paraphrased answer and each perturbed one state in the position of a fact.

    The words that all of them share, in order, are anchors; between two anchors are the words that differ. Of the
    stretch that has most of the fact's words, the perturbed answer's fact of the same kind is taken; for names and
    titles, which cannot be recognised by their words alone, as many words as the paraphrase has of the fact.

    Args:
        fact: A fact of the gold answer.
        paraphrased: The true answer in the words that the perturbed ones follow.
        perturbed: Wrong answers.

    Returns:
        The true fact and a wrong one for each perturbed answer; None where the paraphrase states the fact in other
        words, or a perturbed answer has no fact of that kind and form there, or states the same.
    """
    target = stems(fold(fact.text))
    best: tuple[int, list[list[str]], int, int] | None = None
    for stretch in _stretches([paraphrased.split(), *(text.split() for text in perturbed)]):
        hits = [index for index, word in enumerate(stretch[0]) if not target.isdisjoint(stems(fold(word)))]
        if hits and (best is None or len(hits) > best[0]):
            best = len(hits), stretch, hits[0], hits[-1] + 1
    if best is None:
        return None
    _, stretch, start, end = best
    texts = [_counterpart(fact.kind, stretch[0], words, start, end) for words in stretch]
    true, *wrong = ((_form(text), stems(fold(text))) for text in texts)
    fit = all(form == true[0] and words != true[1] for form, words in wrong)
    return tuple(texts) if all(texts) and not target.isdisjoint(true[1]) and fit else None


def _counterpart(kind: Kind, own: Sequence[str], words: Sequence[str], start: int, end: int) -> str:
    """The fact in a stretch of words; empty if there is none of that kind."""
    size = end - start
    begin = min(start, max(0, len(words) - size))
    if kind in (Kind.NAME, Kind.TITLE, Kind.CONTENT):
        # Where the fact ends the stretch, so does its counterpart, unless that is much longer.
        stop = len(words) if end == len(own) and len(words) - begin <= size + 2 else begin + size
        return " ".join(words[begin:stop]).strip(_PUNCTUATION + " ")
    # All words, because those around a fact may be what shows its kind; nothing was shown before, so every fact counts.
    same = [each.text for each in find_facts("", " ".join(words)).facts if each.kind is kind]
    return same[0] if same else ""


def _form(text: str) -> tuple[bool, bool]:
    """Whether a text begins with a capital letter, and with a digit; what no wrong candidate may differ in."""
    return text[:1].isupper(), text[:1].isdigit()


def _stretches(texts: list[list[str]]) -> Iterator[list[list[str]]]:
    """The words of each text between two words that all texts share; stretches that are empty in one are skipped."""
    keys = [[word.strip(_PUNCTUATION).lower() for word in text] for text in texts]
    aligned: list[dict[int, int]] = []
    for other in keys[1:]:
        blocks = difflib.SequenceMatcher(None, keys[0], other, autojunk=False).get_matching_blocks()
        aligned.append({block.a + i: block.b + i for block in blocks for i in range(block.size)})
    anchors = [index for index in range(len(keys[0])) if all(index in found for found in aligned)]
    before = [-1] * len(texts)
    for anchor in [*anchors, None]:
        after = [len(text) for text in texts] if anchor is None else [anchor, *(found[anchor] for found in aligned)]
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
    for index in range(len(rows)):
        pool = np.flatnonzero((kinds == kinds[index]) & (authors != authors[index]) & (texts != texts[index]))
        if len(pool):
            others = generator.choice(pool, LEARNED - 1, replace=len(pool) < LEARNED - 1)
            kept.append(index)
            drawn.append([index, *others])
    return np.array(kept, dtype=np.intp), np.array(drawn, dtype=np.intp).reshape(-1, LEARNED)
