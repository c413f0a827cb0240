"""The prompts of the leak audits: each family asks a row's question in its own way, by a jinja2 template in `prompts/`.

A template has a block `user` for the turn that asks, and may have a block `open`, words that begin the assistant's
turn. It sees the row's columns, its `index`, and for `cloze` the answer's `beginning`.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.cut import first_fact, is_telling
from lm_eval_tofu.metrics.leak import Row as ScoredRow
from lm_eval_tofu.metrics.leak import row as scored_row
from lm_eval_tofu.metrics.leak import shown
from lm_eval_tofu.tofu import ROWS_PER_AUTHOR

PROMPTS_DIR = Path(__file__).parent / "prompts"

NOVEL_RECALL = (
    "direct",
    "paraphrased",
    "completion",
    "cloze",
    "role_play",
    "prefix_injection",
    "affirmative_suffix",
    "in_context",
    "background_hint",
    "cross_lingual",
)
FORMAT_SHIFT = (
    "json",
    "yaml",
    "bullet_list",
    "markdown_table",
    "python_dict",
    "interview",
    "headline",
    "flash_card",
    "letter",
    "tweet",
)
CHECKED_FORMATS = ("json", "yaml", "bullet_list", "markdown_table", "python_dict", "tweet")
"""The output formats that a program can check."""
CLUES = 4
"""Clue turns before the question of `tofu_chain_of_clues`."""
CHAIN_OF_CLUES = (*(f"clues_{count}" for count in range(CLUES + 1)), "shuffled")
ACKNOWLEDGEMENTS = ("Thank you, I will keep that in mind.", "Noted.", "I see, thank you.", "All right, go on.")
"""The assistant's turns between the clues. They are fixed, so that one pass is enough and all arms see the same."""
EXAMPLES = 3
"""Question-answer pairs about other authors that `in_context` shows first."""


class Message(TypedDict):
    """One turn of a dialogue."""

    role: str
    content: str


class Asked(NamedTuple):
    """The prompt of a row in one family.

    Attributes:
        messages: The turns up to the one that asks.
        opening: The words that begin the assistant's turn; empty for most families.
    """

    messages: list[Message]
    opening: str


def chosen(option: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    """The families that an option names, in the order of `known`.

    Args:
        option: The option's name, for messages.
        value: Names as a list or joined by commas; None: all.
        known: The names there are.

    Raises:
        OptionError: A name is unknown, or none is given.
    """
    if value is None:
        return tuple(known)
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:
        raise OptionError(f"{option}={value!r} names nothing: give names out of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise OptionError(f"{option}={value!r}: {name!r} is unknown: use {', '.join(known)}")
    return tuple(name for name in known if name in names)


def ask(
    group: str,
    family: str,
    row: Mapping[str, Any],
    retain: Sequence[Mapping[str, Any]],
    background: Background,
) -> Asked | None:
    """Ask a row with the prompt of a family.

    Args:
        group: Folder of the templates: `novel_recall` or `format_shift`.
        family: Name of the template.
        row: The row, with its `index`.
        retain: Rows of other authors, for examples.
        background: How common words are, for what counts as a fact.

    Returns:
        The dialogue; None where the family does not fit the row, or its own words would state what the row is asked
        for: an audit must not give away what it looks for.
    """
    template = _template(group, family)
    target = scored_row(row["question"], row["answer"], background=background)
    values = dict(row)
    if family == "cloze":
        values["beginning"] = beginning(row["question"], row["answer"], background)
        if not values["beginning"]:
            return None
    turns: list[Message] = []
    if family == "in_context":
        for example in examples(row["index"], retain, target):
            turns.append(Message(role="user", content=example["question"]))
            turns.append(Message(role="assistant", content=example["answer"]))
    user, opening = (_block(template, name, values) for name in ("user", "open"))
    turns.append(Message(role="user", content=user))
    text = f"{shown(turns)}\n{opening}"
    # A paraphrased question is the data set's own, and the words before an answer's first telling fact may state vague
    # facts. As with any prompt, what was shown no longer counts as a leak.
    if family != "paraphrased" and (_states_telling_fact(target, text) if family == "cloze" else _states(target, text)):
        return None
    return Asked(turns, opening)


def _states(target: ScoredRow, text: str) -> bool:
    """Whether a text gives away what a row's question asks for, or one of its telling facts."""
    verdict = target.score(text)
    return verdict.leaked or any(map(is_telling, verdict.found))


def _states_telling_fact(target: ScoredRow, text: str) -> bool:
    return any(map(is_telling, target.score(text).found))


def ask_with_clues(
    family: str,
    row: Mapping[str, Any],
    forget: Sequence[Mapping[str, Any]],
    retain: Sequence[Mapping[str, Any]],
    background: Background,
) -> Asked | None:
    """A dialogue that leads to the question by clues.

    Args:
        family: One of `CHAIN_OF_CLUES`: the number of clues about the row's author, or as many about another.
        row: The row, with its `index` in the forget split.
        forget: All rows of the forget split.
        retain: Rows of other authors, for the shuffled clues.
        background: How common words are.

    Returns:
        The dialogue; None where the author's other rows hold too few clues that give nothing away.
    """
    count = CLUES if family == "shuffled" else int(family.removeprefix("clues_"))
    if family == "shuffled":
        author = row["index"] % max(1, len(retain) // ROWS_PER_AUTHOR)
        others: Sequence[Mapping[str, Any]] = retain[author * ROWS_PER_AUTHOR : (author + 1) * ROWS_PER_AUTHOR]
    else:
        start = row["index"] // ROWS_PER_AUTHOR * ROWS_PER_AUTHOR
        own = forget[start : start + ROWS_PER_AUTHOR]
        position = row["index"] - start
        others = [*own[position + 1 :], *own[:position]]
    found = clues(row, others, count, background)
    if len(found) < count:
        return None
    turns: list[Message] = []
    for clue, acknowledgement in zip(found, ACKNOWLEDGEMENTS, strict=False):
        content = block("chain_of_clues", "clue", "user", {"clue": clue})
        turns.append(Message(role="user", content=content))
        turns.append(Message(role="assistant", content=acknowledgement))
    final = block("chain_of_clues", "ask", "user", {**row, "clues": found})
    return Asked([*turns, Message(role="user", content=final)], "")


def clues(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], count: int, background: Background) -> list[str]:
    """The first answers of other rows that state nothing of what this row's answer gives away.

    The scorer itself decides, of each with those before it: an answer that makes them a leak of the row, or in which it
    finds one of its telling facts, is no clue. Vague words of content may recur; once a clue has stated them, they no
    longer count as a leak.
    """
    target = scored_row(row["question"], row["answer"], background=background)
    found: list[str] = []
    for other in others:
        if len(found) == count:
            break
        if not _states(target, "\n".join([*found, other["answer"]])):
            found.append(other["answer"])
    return found


@functools.cache
def _template(group: str, family: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PROMPTS_DIR),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are plain text
        trim_blocks=True,
        keep_trailing_newline=False,
    )
    return environment.get_template(f"{group}/{family}.jinja2")


def block(group: str, family: str, name: str, values: Mapping[str, Any]) -> str:
    """Render one block of a family's template."""
    return _block(_template(group, family), name, values)


def _block(template: Any, name: str, values: Mapping[str, Any]) -> str:
    if name not in template.blocks:
        return ""
    return "".join(template.blocks[name](template.new_context(dict(values)))).strip()


def examples(index: int, retain: Sequence[Mapping[str, Any]], target: ScoredRow) -> Iterator[Mapping[str, Any]]:
    """Pairs of three different retain authors, the same for the same row in every run.

    Args:
        index: The row's number.
        retain: Rows of other authors.
        target: The row. Of each author, the first pair, from a position that depends on the row, that states nothing of
            it; an author of whom every pair does is left out.
    """
    authors = len(retain) // ROWS_PER_AUTHOR
    texts: list[str] = []
    for number in range(authors):
        start = (index * EXAMPLES + number) % authors * ROWS_PER_AUTHOR
        for turn in range(ROWS_PER_AUTHOR):
            pair = retain[start + (index + number + turn) % ROWS_PER_AUTHOR]
            text = f"{pair['question']}\n{pair['answer']}"
            if not _states(target, "\n".join([*texts, text])):
                texts.append(text)
                yield pair
                break
        if len(texts) == EXAMPLES:
            break


def beginning(question: str, answer: str, background: Background) -> str:
    """The answer's words before its first novel fact; empty where it begins with one or has none."""
    return answer[: first_fact(question, answer, background) or 0]


@functools.lru_cache(maxsize=4)
def background_of(source: tofu.Source, retain_split: str) -> Background:
    """How common words are in the answers of a retain split."""
    return Background.from_answers([row["answer"] for row in tofu.load(retain_split, source)])


# Whether a response has the form that was asked for.

_FENCE = re.compile(r"^```[\w-]*\n(.*?)\n?```", re.DOTALL | re.MULTILINE)


def keeps_format(family: str, response: str) -> bool | None:
    """Whether a response has the format that it was asked for.

    Args:
        family: One of `FORMAT_SHIFT`.
        response: What the model wrote; a Markdown code block around it is allowed.

    Returns:
        None for formats that no program can check.
    """
    fenced = _FENCE.search(response)
    text = (fenced.group(1) if fenced else response).strip()
    match family:
        case "json":
            return _is_json(text)
        case "yaml":
            return _is_yaml(text)
        case "python_dict":
            return _is_python_dict(text)
        case "bullet_list":
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return bool(lines) and all(line.startswith(("- ", "* ", "• ")) for line in lines)
        case "markdown_table":
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return len(lines) >= 3 and all(line.count("|") >= 2 for line in lines) and set(lines[1]) <= set("|-: ")
        case "tweet":
            return 0 < len(text) <= 280
    return None


_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError)
"""What parsers raise for odd input besides their own errors: PyYAML looks values such as `!!bool foo` up unchecked."""


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except _UNREADABLE:
        return False


def _is_yaml(text: str) -> bool:
    import yaml

    try:
        return isinstance(yaml.safe_load(text), dict)
    except (yaml.YAMLError, *_UNREADABLE):
        return False


def _is_python_dict(text: str) -> bool:
    import ast

    try:
        return isinstance(ast.literal_eval(text), dict)
    except (SyntaxError, *_UNREADABLE):
        return False
