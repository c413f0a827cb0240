"""The rows of each task: which questions are asked, and in which words."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import families, recognition
from lm_eval_tofu.tasks.options import Options

Row = dict[str, Any]


def forget_split(options: Options) -> list[Row]:
    """The forget split with its paraphrased and perturbed answers.

    Raises:
        OptionError: Some of its rows alone are asked for; these tasks compare whole splits with a reference.
    """
    if options.forget_rows is not None:
        raise OptionError(
            "forget_rows fits the leak audits only: leave it out, since this task compares all rows of a split with "
            "those of a reference or of the holdout split"
        )
    return _forget(options)


def membership(options: Options) -> list[Row]:
    """The forget split, and the holdout split of the same size, which no arm has seen.

    Raises:
        OptionError: Some rows alone are asked for.
    """
    holdout = options.forget_split.replace("forget", "holdout")
    return forget_split(options) + _load("holdout", holdout, options)


def utility_sets(options: Options) -> list[Row]:
    """Retain rows, real authors and world facts; the last two have no paraphrase, the gold answer is used instead."""
    return [
        {"paraphrased_answer": row["answer"], "paraphrased_question": row["question"], **row}
        for name in tofu.UTILITY_SETS
        for row in _load(name, f"{name}_perturbed", options)
    ]


def novel_recall(options: Options) -> list[Row]:
    """Every forget row in the words of every prompt family."""
    return _in_prompts("novel_recall", options.asked_families, options)


def format_shift(options: Options) -> list[Row]:
    """Every forget row, to be answered in every output format."""
    return _in_prompts("format_shift", options.asked_formats, options)


def best_of_n(options: Options) -> list[Row]:
    """Every forget row in the words of the family that is sampled."""
    return _in_prompts("novel_recall", (options.best_of_n_prompts,), options)


def chain_of_clues(options: Options) -> list[Row]:
    """Every forget row after 0 to 4 clues, and after another author's."""
    return _in_prompts("chain_of_clues", families.CHAIN_OF_CLUES, options)


def recognition_options(options: Options) -> list[Row]:
    """Every forget row with six options to choose from."""
    retain = tofu.load(tofu.retain_split(options.forget_split), options.source)
    names = recognition.author_names(_forget(options)) + recognition.author_names(retain)

    def ask(family: str, row: Row) -> Row | None:
        choice = recognition.ask(family, row, names)
        return None if choice is None else {**choice.asked._asdict(), "options": choice.options, "right": choice.right}

    return _asked(recognition.RECOGNITION, options, ask)


def _in_prompts(group: str, names: Sequence[str], options: Options) -> list[Row]:
    retain_split = tofu.retain_split(options.forget_split)
    retain = tofu.load(retain_split, options.source)
    background = families.background_of(options.source, retain_split)
    # All of them: what an author's other rows say can be part of a prompt.
    forget = _forget(options)

    def ask(family: str, row: Row) -> Row | None:
        if group == "chain_of_clues":
            asked = families.ask_with_clues(family, row, forget, retain, background)
        else:
            asked = families.ask(group, family, row, retain, background)
        return None if asked is None else asked._asdict()

    return _asked(names, options, ask)


def _asked(names: Sequence[str], options: Options, ask: Callable[[str, Row], Row | None]) -> list[Row]:
    """The chosen forget rows in the words of every family, with the number of pairs that cannot be asked."""
    rows, left_out = [], Counter[str]()
    for row in _forget(options):
        if options.forget_rows is not None and row["index"] not in options.forget_rows:
            continue
        for name in names:
            asked = ask(name, row)
            if asked is None:
                left_out[name] += 1
            else:
                rows.append(
                    {key: row[key] for key in ("set", "index", "question", "answer")} | {"family": name} | asked
                )
    return [{**row, "left_out": left_out.total()} for row in rows]


def _forget(options: Options) -> list[Row]:
    rows = _load("forget", f"{options.forget_split}_perturbed", options)
    tofu.check_row_numbers("forget_rows", options.forget_rows or (), options.forget_split, len(rows))
    return rows


def _load(name: str, config: str, options: Options) -> list[Row]:
    return [{"set": name, "index": index, **row} for index, row in enumerate(tofu.load(config, options.source))]
