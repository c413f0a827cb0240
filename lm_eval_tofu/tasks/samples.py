"""Reads the samples files that lm-eval writes for our tasks, and checks every record in them."""

import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError, TofuError
from lm_eval_tofu.tasks.records import RECORDS
from lm_eval_tofu.tasks.reported import TASKS


def read(
    path: Path,
    task: str,
    version: Any,
    *,
    needed: Collection[str],
    fix: str,
    error: type[TofuError] = OptionError,
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Read the samples of one task.

    Args:
        path: The file.
        task: The task that it must be of.
        version: The version that its records must have.
        needed: Fields that a record must have; the others are checked where they are there.
        fix: What a message about a damaged line says to do.
        error: What is raised where a line is damaged, or of another task or version. Messages name file and line.

    Yields:
        What lm-eval stores of a document, and the task's record in it.
    """
    for where, sample in files.read_json_lines(path, fix, error):
        record = sample.get(TASKS[task])
        if not isinstance(record, dict) or record.get("task") != task:
            raise error(f"{where}: no record of {task} (it is of another task, or damaged): {fix}")
        if record.get("version") != version:
            raise error(
                f"{where} is of {task} version {record.get('version')}, this is version {version}: evaluate that arm "
                "again, or install the release that it was evaluated with"
            )
        problem = _problem(record, task, {*_ALWAYS, *needed})
        if problem:
            raise error(f"{where}: the record of {task} {problem}: {fix}")
        yield sample, record


_ALWAYS = ("set", "index", "split")


def _problem(record: Mapping[str, Any], task: str, needed: Collection[str]) -> str:
    """What is wrong with a record; empty where nothing is."""
    for name, hint in _hints(task).items():
        if name in record and not _fits(record[name], hint):
            return f"has {name}={str(record[name])[:40]!r}"
        if name in needed and name not in record:
            return f"lacks {name!r}"
    return ""


@functools.cache
def _hints(task: str) -> dict[str, Any]:
    """Type of each field of a task's records."""
    return get_type_hints(RECORDS[task])


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type; null stands for NaN."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is UnionType:
        return any(_fits(value, each) for each in arguments)
    if is_typeddict(hint):
        return isinstance(value, dict) and all(
            name in value and _fits(value[name], each) for name, each in get_type_hints(hint).items()
        )
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if origin is not None:
        return isinstance(value, list) and all(_fits(each, arguments[0]) for each in value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    # A yes or no may be counted as 1 or 0.
    return isinstance(value, {float: int | float | None, bool: int}.get(hint, hint))
