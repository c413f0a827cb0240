"""Recognition: the right answer stands in the prompt, among wrong ones, so that chance alone gets some right."""

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_tofu.tasks import families
from lm_eval_tofu.tasks.families import ROWS_PER_AUTHOR, Asked, Message

RECOGNITION = ("multiple_choice", "reverse_query")
CHOICES = 6
"""The right one and five wrong ones: chance is 1/6."""
LETTERS = "ABCDEF"

_WORD = re.compile(r"[^\W\d_][\w'’ʻʼ.-]*")
_LETTER = re.compile(r"(?<![\w'])\(?([A-F])(?:[).:,]|(?![\w']))")
_LONGEST_NAME = 6


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
        None where the author's name is not in the answer, or cannot be told.
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
    place = zlib.crc32(row["question"].encode()) % CHOICES
    options = [*wrong[:place], right, *wrong[place:]]
    user = families.block(
        "recognition", family, "user", {**values, "options": list(zip(LETTERS, options, strict=True))}
    )
    return Choice(Asked([Message(role="user", content=user)], ""), options, LETTERS[place])


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
    found: set[tuple[str, ...]] = set()
    for start in range(len(words)):
        for end in range(start + 1, min(len(words), start + _LONGEST_NAME) + 1):
            part = words[start:end]
            # «Yusra al-Bahrani», «Isabella van Pletzen»: a particle may be small, or the beginning of the last word.
            small = sum(not any(map(str.isupper, word)) for word in part)
            if part[0][0].isupper() and any(map(str.isupper, part[-1])) and small <= 1:
                found.add(tuple(part))
    return {part for part in found if " ".join(part) in text}


def chosen_letter(response: str, options: Sequence[str]) -> str | None:
    """The letter that a response names, or whose option it repeats; None where it is neither or several."""
    letters = set(_LETTER.findall(response[:40]))
    if len(letters) == 1:
        return str(letters.pop())
    repeated = [letter for letter, option in zip(LETTERS, options, strict=True) if option in response]
    return repeated[0] if len(repeated) == 1 else None
