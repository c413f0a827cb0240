"""Writing files whole or not at all, also where several processes write the same one."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4


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


def as_float(value: Any) -> float:
    """A figure as JSON holds it; NaN where it is null or no number."""
    return float(value) if isinstance(value, int | float) else math.nan
