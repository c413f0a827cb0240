"""Files are written whole or not at all, also by several processes at the same time."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from lm_eval_tofu import files

WRITER = """
import sys
from pathlib import Path
from lm_eval_tofu import files
path, name = Path(sys.argv[1]), sys.argv[2]
for number in range(100):
    files.write_json(path, {"writer": name, "values": [number] * 2000})
"""


def test_processes_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Every write succeeds, and a reader never sees a part: with one temporary name for all, both fail."""
    path = tmp_path / "shared.json"
    files.write_json(path, {"writer": "none", "values": []})
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(name)], stderr=subprocess.PIPE, text=True)
        for name in range(3)
    ]
    while any(writer.poll() is None for writer in writers):
        content = json.loads(path.read_text())
        assert len(set(content["values"])) <= 1
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    assert len(json.loads(path.read_text())["values"]) == 2000
    assert [each.name for each in tmp_path.iterdir()] == ["shared.json"]


def test_files_reach_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order the file system keeps, nobody finds an empty file under the name after a crash."""
    order: list[str] = []
    synced, renamed = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: order.append("fsync") or synced(number))
    monkeypatch.setattr(Path, "replace", lambda self, to: order.append("rename") or renamed(self, to))
    files.write_text(tmp_path / "file", "content")
    assert order == ["fsync", "rename"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other").write_text("x")
    files.sync(tmp_path)
    assert order == ["fsync", "rename", "fsync", "fsync"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    files.write_text(path, "old")

    def interrupted() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """Other users of a shared cache must be able to read it."""
    files.write_text(tmp_path / "sub" / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    assert (tmp_path / "sub" / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    files.write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"


def test_what_json_does_not_have_is_null(tmp_path: Path) -> None:
    class Pair(NamedTuple):
        first: float
        second: float | None

    content = {"a": math.nan, "b": [1.5, math.inf, {"c": (-math.inf, 2)}], "d": Pair(math.nan, 1.0), "e": "NaN"}
    files.write_json(tmp_path / "x.json", content)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": [None, 1.0], "e": "NaN"}
    assert files.without_nan(content)["d"] == Pair(None, 1.0)
    assert isinstance(files.without_nan(content)["d"], Pair)
    assert [files.as_float(value) for value in (1, 0.5)] == [1.0, 0.5]
    assert all(math.isnan(files.as_float(value)) for value in (None, "1", math.nan))
