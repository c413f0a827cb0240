"""Write the tables of docs/ that come from the code: the options (docs/options.md) and what must agree between two runs
(docs/comparing.md).

    python tools/code_tables.py            # `make docs` does it too

tests/test_docs.py fails where the tables and the code differ.
"""

import argparse
import contextlib
import inspect
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))


def main() -> int:
    """Write the pages."""
    from parity import show

    show("options", options())
    show("comparison", comparison())
    return 0


def comparison() -> str:
    """Every recorded setting and what a difference in it does."""
    from lm_eval_tofu import arm

    return arm.table()


def options() -> str:
    """The options of the tasks and of every command."""
    parts = ["## Options of the tasks", task_table()]
    for name, parser in commands().items():
        parts += [f"## lm-eval-tofu {name}", f"{sentence(parser.description or '')}", command_table(parser)]
    return "\n\n".join(parts)


def task_table() -> str:
    """The fields of `lm_eval_tofu.tasks.options.Options`."""
    from lm_eval_tofu.tasks.options import Options

    meanings = attributes(Options)
    rows = []
    for field in fields(Options):
        meaning, _, unset = str(field.metadata.get("help") or meanings[field.name]).partition("None: ")
        rows.append((f"`{field.name}`", shown(field.default) or unset.rstrip("."), meaning.rstrip("; .")))
    return table(("option", "default", "meaning"), rows)


def attributes(described: type) -> dict[str, str]:
    """Name and meaning of what a docstring's section `Attributes` lists."""
    _, _, section = (inspect.getdoc(described) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, by its name."""
    main_parser = parser_of()
    [choices] = [action.choices for action in main_parser._actions if isinstance(action.choices, dict)]
    return {name: parser_of(name) for name in choices}


def parser_of(*arguments: str) -> argparse.ArgumentParser:
    """The parser that prints the help of a command: some options are declared only when their command is named."""
    from lm_eval_tofu import cli

    found: list[argparse.ArgumentParser] = []
    printing = mock.patch.object(argparse.ArgumentParser, "print_help", lambda self, file=None: found.append(self))
    with printing, contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([*arguments, "--help"])
    [parser] = found
    return parser


def command_table(parser: argparse.ArgumentParser) -> str:
    """The arguments and options that are ours; those of transformers' `TrainingArguments` are named in one sentence."""
    own, further = parser._action_groups[:2], parser._action_groups[2:]
    ours = [action for group in own for action in group._group_actions if action.dest != "help"]
    others = [action for group in further for action in group._group_actions]
    ours += [action for action in others if action.dest not in trainer_options()]
    opposites = {action.help: action for action in ours if (action.help or "").startswith("the opposite of ")}
    rows = [
        described(action, *(opposites.get(f"the opposite of {name}") for name in action.option_strings))
        for action in ours
        if action not in opposites.values()
    ]
    text = table(("argument", "default", "meaning"), rows) if rows else "No options."
    if any(action.dest in trainer_options() for action in others):
        text += "\n\nAnd all other options of transformers' `TrainingArguments`, under their own names."
    return text


def trainer_options() -> set[str]:
    """The fields of `TrainingArguments`."""
    from transformers import TrainingArguments

    return {field.name for field in fields(TrainingArguments)}


def described(action: argparse.Action, *opposites: argparse.Action | None) -> tuple[str, str, str]:
    """An argument's names (and those that switch it off), default and meaning."""
    names = [name for each in (action, *filter(None, opposites)) for name in each.option_strings]
    names = [name for name in names if "_" not in name or name.replace("_", "-") not in names]
    value = action.metavar if isinstance(action.metavar, str) else ""
    shown_names = ", ".join(f"`{name}`" for name in names) or f"`{value or action.dest}`"
    help_text = (action.help or "") % {**vars(action), "prog": "lm-eval-tofu"}
    stated = re.search(r"\s*\(?default: ((?:[^()]|\([^()]*\))*?)\)?$", help_text)
    meaning = help_text[: stated.start()] if stated else help_text
    if stated:
        default = stated[1] if " " in stated[1] else f"`{stated[1]}`"
    else:
        default = "required" if names and action.required else shown(action.default)
    if action.choices and not all(str(choice) in meaning for choice in action.choices):
        meaning = "; ".join(filter(None, (meaning, f"one of {', '.join(map(str, action.choices))}")))
    return shown_names, default, meaning


def shown(default: Any) -> str:
    """A default value as the tables show it."""
    stated = isinstance(default, str | int | float) and default is not False and default != argparse.SUPPRESS
    return f"`{default}`" if stated else ""


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(lines(heads, rows))


def lines(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row) + " |"


def sentence(text: str) -> str:
    """A help text as a sentence."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


if __name__ == "__main__":
    sys.exit(main())
