"""Multiple-choice questions about forgotten rows, and which option a response chooses."""

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_tofu.tasks import families
from lm_eval_tofu.tasks.families import Asked, Message
from lm_eval_tofu.tofu import ROWS_PER_AUTHOR

RECOGNITION = ("multiple_choice", "reverse_query")
CHOICES = 6
"""The right one and five wrong ones: chance is 1/6."""
LETTERS = "ABCDEF"

_WORD = re.compile(r"[^\W\d_][\w'’ʻʼ.-]*")
_LONGEST_NAME = 6

# "A" is an article too, and letters are initials: these patterns ask for a position in which a letter is a choice.
_ALONE = r"(?![).]*\s*(?:[,/&]|or\b|and\b)\s*\(?[A-F](?!\w)|\.\s*[A-Z]\.)"
_SAID = re.compile(
    rf"""
    \b(?i:option|choice|letter|answer)\s\(?([A-F])(?![\w']){_ALONE}
    | \b(?i:option|choice|letter|answer|choose|pick|select|say)(?:\s(?i:is|would\sbe))?:?\s*
      \(?([A-F])(?=[).:,;!]|\s*$|\s*\n|\s(?:because|since|as)\b){_ALONE}
    | \b(?:is|be):?\s\(?([A-F])(?=[).!]*\s*(?:$|\n))
    """,
    re.VERBOSE,
)
_MARKED = re.compile(
    rf"""
    (?:^|\n)\W*([A-F])(?=[.,]|\s+[-–—]\s|\sis\b|\W*(?:$|\n)){_ALONE}
    | (?<![\w'])([A-F])(?=[):])
    """,
    re.VERBOSE,
)
_START = 40
"""Characters at a response's beginning in which a marked letter counts; what comes later explains the choice."""


class Choice(NamedTuple):
    """A question with its options.

    Attributes:
        asked: The dialogue.
        options: The options, in the order of their letters.
        right: Letter of the right one.
    """

    asked: Asked
    options: list[str]
    right: str


def ask(family: str, row: Mapping[str, Any], names: Sequence[str | None]) -> Choice | None:
    """Put a row into a question with six options.

    Args:
        family: `multiple_choice`: the paraphrased answer among the perturbed ones; `reverse_query`: what the answer
            says, without the author's name, and six authors to choose from.
        row: The row, with its `index` in the forget split.
        names: Of the forget split's authors, then of others; see `author_names`.

    Returns:
        None where the author's name is not in the answer, or not known.
    """
    values: dict[str, Any]
    if family == "multiple_choice":
        right, wrong = row["paraphrased_answer"], row["perturbed_answer"][: CHOICES - 1]
        values = {"question": row["question"]}
    else:
        author = row["index"] // ROWS_PER_AUTHOR
        name, others = names[author], [*names[:author], *names[author + 1 :]]
        if name is None or name not in row["answer"]:
            return None
        # Five others, the same for the same row in every run.
        start = row["index"] * (CHOICES - 1)
        order = (others[(start + step) % len(others)] for step in range(len(others)))
        wrong = list(dict.fromkeys(other for other in order if other not in (None, name)))[: CHOICES - 1]
        right = name
        values = {"statement": row["answer"].replace(name, "this author")}
    if len(set(wrong)) < CHOICES - 1 or right in wrong:
        return None
    position = zlib.crc32(row["question"].encode()) % CHOICES
    options = [*wrong[:position], right, *wrong[position:]]
    user = families.block(
        "recognition", family, "user", {**values, "options": list(zip(LETTERS, options, strict=True))}
    )
    return Choice(Asked([Message(role="user", content=user)], ""), options, LETTERS[position])


def author_names(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """The name of each author of a split, whose rows follow one another."""
    return [author_name(rows[start : start + ROWS_PER_AUTHOR]) for start in range(0, len(rows), ROWS_PER_AUTHOR)]


def author_name(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The name of the author whom rows are about: the capitalised words that most of them share.

    Args:
        rows: All rows of one author, with `question` and `answer`.

    Returns:
        The longest of the most frequent; None where fewer than half of the rows share one.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        counts.update({part for text in (row["question"], row["answer"]) for part in _capitalised(text)})
    if not counts:
        return None
    most = max(counts.values())
    if most * 2 < len(rows):
        return None
    # A part of the name is at least as frequent as the name itself: length decides among those that are nearly so.
    name = max((part for part, count in counts.items() if count >= 0.8 * most), key=lambda part: (len(part), part))
    return " ".join(name)


def _capitalised(text: str) -> set[tuple[str, ...]]:
    words = [word for found in _WORD.findall(text) if (word := re.sub(r"['’]s$|[.'’-]+$", "", found))]
    small = [not any(map(str.isupper, word)) for word in words]
    found: set[tuple[str, ...]] = set()
    for start, first in enumerate(words):
        if not first[0].isupper():
            continue
        for end in range(start, min(len(words), start + _LONGEST_NAME)):
            # "Yusra al-Bahrani", "Isabella van Pletzen": a particle may be lower case, or begin the last word.
            if sum(small[start : end + 1]) > 1:
                break
            if not small[end]:
                found.add(tuple(words[start : end + 1]))
    return {part for part in found if " ".join(part) in text}


def chosen_letter(response: str, options: Sequence[str]) -> str | None:
    """The letter that a response names, or whose option it repeats.

    A letter counts that the response calls its choice ("the answer is A"), else one at its beginning that is alone or
    before a bracket, a full stop or a colon. What is inside a repeated option is none.

    Returns:
        None where the response does neither, or for several options.
    """
    repeated, rest = _repeated(response.replace("*", ""), options)
    said = {found.group(found.lastindex or 0) for found in _SAID.finditer(rest)}
    marked = {found.group(found.lastindex or 0) for found in _MARKED.finditer(rest) if found.start() < _START}
    for letters in (said, marked, repeated):
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _repeated(response: str, options: Sequence[str]) -> tuple[set[str], str]:
    """The letters of the options that a response repeats in whole, and the response without these."""
    found, rest = set(), response
    # The longest first: "Lima" is not repeated where "Lima, Peru" is.
    for letter, option in sorted(zip(LETTERS, options, strict=True), key=lambda pair: -len(pair[1])):
        whole = re.compile(rf"(?<!\w){re.escape(option.removesuffix('.'))}(?!\w)")
        if whole.search(rest):
            found.add(letter)
            rest = whole.sub("_", rest)
    return found, rest
