"""Files are written whole or not at all, also by several processes at once; whoever reads them names the damage."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from lm_eval_tofu import files
from lm_eval_tofu.errors import DataError, OptionError

WRITER = """
import sys
from pathlib import Path
from lm_eval_tofu import files
from lm_eval_tofu.errors import DataError, OptionError
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


class TestResults:
    """Results and samples of one run have one time."""

    TIME = "2026-01-02T03-04-05.678901"

    def test_times(self) -> None:
        for name in (
            f"results_{self.TIME}.json",
            f"x_{self.TIME}.json",
            f"samples_tofu_forget_quality_{self.TIME}.jsonl",
        ):
            assert files.time_of(Path("j", name)) == self.TIME
        assert files.time_of(Path("results_9.json")) == "9"
        assert files.time_of(Path("x_2026-01-02T03-04-05.json")) == "2026-01-02T03-04-05"
        assert files.time_of(Path("selection.json")) is None

    def test_results_of_any_name_are_found_oldest_first(self, tmp_path: Path) -> None:
        names = [f"z_{self.TIME}.json", "a_2026-01-03T00-00-00.1.json", "results_2026-01-04T00-00-00.1.json"]
        for name in (*reversed(names), "config.json", "selection.json", f"samples_t_{self.TIME}.jsonl"):
            (tmp_path / name).write_text("{}")
        assert [file.name for file in files.results_files(tmp_path)] == names

    def test_samples_are_paired_by_their_time(self, tmp_path: Path) -> None:
        samples = tmp_path / f"samples_t_{self.TIME}.jsonl"
        assert files.results_of_samples(samples) is None
        (tmp_path / "other_2026-01-03T00-00-00.1.json").write_text("{}")
        assert files.results_of_samples(samples) is None
        (tmp_path / f"full_{self.TIME}.json").write_text("{}")
        assert files.results_of_samples(samples) == tmp_path / f"full_{self.TIME}.json"
        assert files.results_of_samples(tmp_path / "samples.jsonl") is None

    def test_newest_results_and_their_samples(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="holds no results of lm_eval: run lm_eval --output_path"):
            files.newest_results(tmp_path)
        results = [tmp_path / "b" / f"results_{self.TIME}.json", tmp_path / "a" / "x_2026-01-03T00-00-00.1.json"]
        samples = [files.samples_of_results(path, "task") for path in results]
        assert [path.name for path in samples] == [
            f"samples_task_{self.TIME}.jsonl",
            "samples_task_2026-01-03T00-00-00.1.jsonl",
        ]
        for path in (*results, *samples):
            files.write_text(path, "{}")
        assert files.newest_results(tmp_path) == results[1]
        assert files.samples_files(tmp_path, "task") == samples


class TestReading:
    """Each damage is named with file, line and what to do."""

    def test_objects_with_their_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_bytes('{"a": "one\u2028line"}\n\n \n{"a": "ü"}'.encode())
        assert list(files.read_json_lines(path)) == [
            (f"{path}, line 1", {"a": "one\u2028line"}),
            (f"{path}, line 4", {"a": "ü"}),
        ]
        files.write_json(path, {"a": [1]})
        assert files.read_json(path) == {"a": [1]}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"a": 1', "not JSON (Expecting ',' delimiter"),
            (b"[1]", "a list instead of a JSON object"),
            (b'{"a": "\xff"}', "not JSON ('utf-8' codec"),
            (b"[" * 100_000, "not JSON (maximum recursion depth"),
        ],
    )
    def test_damage(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"{}\n" + content)
        with pytest.raises(DataError) as lines:
            list(files.read_json_lines(path, "fetch it", DataError))
        path.write_bytes(content)
        with pytest.raises(OptionError) as whole:
            files.read_json(path)
        for found, where, fix in ((lines, ", line 2", "fetch it"), (whole, "", "it is cut or damaged; make it again")):
            assert str(found.value).startswith(f"{path}{where}: {message}")
            assert str(found.value).endswith(f": {fix}")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        for read in (files.read_json, lambda path: list(files.read_json_lines(path))):
            with pytest.raises(OptionError, match=r"none cannot be read \(.*\): it is cut or damaged; make it again"):
                read(tmp_path / "none")

    def test_json_values(self) -> None:
        assert files.as_json_values({"a": (1, Path("b"))}) == {"a": [1, "b"]}
