"""Reading and writing of files: whole or not at all, JSON, JSON lines, and the results that lm-eval writes."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from lm_eval_tofu.errors import OptionError, TofuError

# Writing.


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the block a new file beside `path`, and rename it to `path` when the block ends without an error.

    Readers see the old content or the new one, never a part. Each call has a file of its own, so that several
    processes may write the same path: the last one to finish wins. The content is on the disk before the rename, so
    that a crash of the machine leaves no empty file either.

    Args:
        path: The file to write; its directory is made where it is missing.

    Yields:
        A path in the same directory where no file exists yet. The block must create it.

    Raises:
        OSError: The directory or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile, whose files only their owner may read. The name does not hold the file's: it could get too long.
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Wait until all files of a directory are on the disk; to be called before it is renamed.

    A rename can reach the disk before the files do: after a crash of the machine the directory would hold empty ones.
    """
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; see `replacing`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; see `replacing`. NaN and infinity become null."""
    write_text(path, json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """A copy with None in place of each float that JSON does not have: NaN and the infinities.

    `json` would write them as bare words, which strict parsers refuse. Mappings become dicts; named tuples keep their
    type.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(without_nan, value))
    if isinstance(value, list | tuple):
        return type(value)(map(without_nan, value))
    return value


# Reading. Every message names the file, for JSON lines the line too, and ends with what to do.

_FIX = "it is cut or damaged; make it again"


def read_json(path: Path, fix: str = _FIX, error: type[TofuError] = OptionError) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        fix: What the message says to do where the file is damaged.
        error: What is raised then, or where the file cannot be opened.
    """
    try:
        text = path.read_bytes()
    except OSError as failure:
        raise error(f"{path} cannot be read ({failure}): {fix}") from failure
    return parse_object(text, str(path), fix, error)


def read_json_lines(
    path: Path, fix: str = _FIX, error: type[TofuError] = OptionError
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of JSON lines, such as lm-eval's samples, one object after the other.

    Args:
        path: The file; its blank lines are skipped.
        fix: What the message says to do where a line is damaged.
        error: What is raised then, or where the file cannot be opened.

    Yields:
        `<path>, line <number>`, for messages about the object, and the object.
    """
    for number, line in lines(path, fix, error):
        where = f"{path}, line {number}"
        yield where, parse_object(line, where, fix, error)


def lines(path: Path, fix: str = _FIX, error: type[TofuError] = OptionError) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1; see `read_json_lines`."""
    try:
        # In bytes, where only \n ends a line: texts of a model hold the other characters that str.splitlines splits at.
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except OSError as failure:
        raise error(f"{path} cannot be read ({failure}): {fix}") from failure


def parse_object(
    text: str | bytes, where: str, fix: str = _FIX, error: type[TofuError] = OptionError
) -> dict[str, Any]:
    """Parse the JSON object that stands at `where`; see `read_json`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise error(f"{where}: not JSON ({failure}): {fix}") from failure
    if not isinstance(value, dict):
        raise error(f"{where}: a {type(value).__name__} instead of a JSON object: {fix}")
    return value


def as_json_values(value: Any) -> Any:
    """A value as it will be read again once it was written as JSON: tuples are lists, paths and the like texts."""
    return json.loads(json.dumps(value, default=str))


def as_float(value: Any) -> float:
    """A figure as JSON holds it; NaN where it is null or no number."""
    return float(value) if isinstance(value, int | float) else math.nan


# What lm-eval writes: `--output_path DIR` makes `results_<time>.json` and `samples_<task>_<time>.jsonl` somewhere
# below; `--output_path FILE.json` makes `FILE_<time>.json`.

_TIME = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)$")


def time_of(file: Path) -> str | None:
    """The time in the name of a file that lm-eval wrote, which results and samples of one run share."""
    match = _TIME.search(file.stem)
    if match:
        return match[1]
    return file.stem.removeprefix("results_") if file.stem.startswith("results_") else None


def results_files(folder: Path) -> list[Path]:
    """The results files below a directory, oldest first."""
    found = [
        file
        for file in folder.rglob("*.json")
        if file.name.startswith("results_") or (_TIME.search(file.stem) and not file.name.startswith("samples_"))
    ]
    return sorted(found, key=lambda file: (time_of(file) or "", file.name))


def newest_results(folder: Path) -> Path:
    """The newest results file below a directory.

    Raises:
        OptionError: There is none.
    """
    found = results_files(folder)
    if not found:
        raise OptionError(f"{folder} holds no results of lm_eval: run lm_eval --output_path {folder}")
    return found[-1]


def samples_files(folder: Path, task: str) -> list[Path]:
    """The samples files of a task below a directory, oldest first."""
    return sorted(folder.rglob(f"samples_{task}_*.jsonl"), key=lambda file: (time_of(file) or "", file))


def samples_of_results(results: Path, task: str) -> Path:
    """Where the samples of a task were written together with a results file."""
    return results.with_name(f"samples_{task}_{time_of(results)}.jsonl")


def results_of_samples(samples: Path) -> Path | None:
    """The results file that was written together with a samples file; None where it is not there."""
    time = time_of(samples)
    if time is None:
        return None
    found = [file for file in samples.parent.glob(f"*_{time}.json") if time_of(file) == time]
    return found[0] if len(found) == 1 else None
