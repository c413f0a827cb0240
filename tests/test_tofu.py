"""The data set: where it comes from, and what is said of data that are not TOFU."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import needs

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import DataError, OptionError

MINI = Path(tofu.__file__).parent / "mini"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the hub's layout, with the miniature's row counts."""
    for path in MINI.glob("*.json"):
        shutil.copy(path, tmp_path)
    smaller = {name: config._replace(rows=config.mini_rows) for name, config in tofu.CONFIGS.items()}
    monkeypatch.setattr(tofu, "CONFIGS", smaller)
    return tmp_path


def refuse(folder: Path, config: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        tofu.load(config, tofu.resolve_source(str(folder)))
    assert "\n" not in str(caught.value)


class TestSources:
    def test_kinds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert tofu.resolve_source("mini").kind == "mini"
        assert tofu.resolve_source(str(tmp_path)) == tofu.Source("local", str(tmp_path.resolve()))
        assert tofu.resolve_source() == tofu.Source("hub", "locuslab/TOFU", "main")
        assert tofu.resolve_source("someone/TOFU", "abc") == tofu.Source("hub", "someone/TOFU", "abc")
        monkeypatch.setenv("LM_EVAL_TOFU_DATA", "mini")
        assert tofu.resolve_source().kind == "mini"
        assert tofu.resolve_source(str(tmp_path)).kind == "local"

    def test_nonsense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DataError, match="tofu='/no/such/place' is no directory and no hub id: name a directory"):
            tofu.resolve_source("/no/such/place")
        with pytest.raises(DataError, match="revision='abc' belongs to the hub"):
            tofu.resolve_source("mini", "abc")
        monkeypatch.setenv("LM_EVAL_TOFU_DATA", "nowhere")
        with pytest.raises(DataError, match="LM_EVAL_TOFU_DATA='nowhere'"):
            tofu.resolve_source()

    def test_retain_splits(self) -> None:
        assert [tofu.retain_split(f"forget{n}") for n in ("01", "05", "10")] == ["retain99", "retain95", "retain90"]
        with pytest.raises(OptionError, match="forget_split='forget20' is unknown: use one of forget01"):
            tofu.retain_split("forget20")

    def test_hub_out_of_reach(self) -> None:
        with pytest.raises(DataError, match=r"cannot be read from the hub .* name the directory") as caught:
            tofu.load("full", tofu.resolve_source("nobody/no-such-data"))
        assert "\n" not in str(caught.value)

    def test_local_sources_need_no_network(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def connect(*args: Any) -> None:
            raise AssertionError("the network was touched")

        monkeypatch.setattr(socket.socket, "connect", connect)
        for config in tofu.CONFIGS:
            tofu._load.cache_clear()
            assert tofu.load(config, tofu.resolve_source("mini")) == tofu.load(config, tofu.resolve_source(str(folder)))


class TestBadData:
    def test_missing_configuration(self, folder: Path) -> None:
        (folder / "retain_perturbed.json").unlink()
        refuse(folder, "retain_perturbed", r"has no retain_perturbed.json.*copy all JSON files of locuslab/TOFU there")

    def test_too_few_rows(self, folder: Path) -> None:
        path = folder / "forget10.json"
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
        refuse(
            folder, "forget10", "'forget10' has 39 rows instead of 40: it is cut or is not TOFU; fetch locuslab/TOFU"
        )

    def test_missing_column(self, folder: Path) -> None:
        path = folder / "forget10_perturbed.json"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        del rows[3]["paraphrased_answer"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        refuse(folder, "forget10_perturbed", "row 3 lacks the column 'paraphrased_answer': fetch")

    @pytest.mark.parametrize("value", ["one text", [], ["a", ""], [1, 2]])
    def test_column_of_another_type(self, folder: Path, value: Any) -> None:
        path = folder / "forget01_perturbed.json"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows[0]["perturbed_answer"] = value
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        refuse(folder, "forget01_perturbed", "row 0: the column 'perturbed_answer' is not a list of texts")

    def test_malformed_json(self, folder: Path) -> None:
        path = folder / "full.json"
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[6] = lines[6][:-9]
        path.write_text("\n".join(lines), encoding="utf-8")
        refuse(folder, "full", r"full.json, line 7: not JSON .*the file is cut or damaged; fetch it anew")

    def test_binary(self, folder: Path) -> None:
        (folder / "full.json").write_bytes(b"\xff\xfe\x00\x01\n")
        refuse(folder, "full", r"full.json, line 1: not JSON")

    def test_row_that_is_no_object(self, folder: Path) -> None:
        (folder / "forget01.json").write_text("[1]\n[2]\n[3]\n[4]\n")
        refuse(folder, "forget01", "row 0 is a list instead of an object")

    def test_unknown_configuration(self) -> None:
        with pytest.raises(OptionError, match="configuration 'forget20' is unknown: use one of full"):
            tofu.load("forget20", tofu.resolve_source("mini"))


def test_loaded_rows_are_the_callers_own() -> None:
    source = tofu.resolve_source("mini")
    tofu.load("forget01", source)[0]["question"] = "changed"
    assert tofu.load("forget01", source)[0]["question"] != "changed"


def test_fingerprints_tell_contents_apart_and_not_places(folder: Path) -> None:
    mini, local = tofu.resolve_source("mini"), tofu.resolve_source(str(folder))
    fingerprints = [tofu.fingerprint(mini, config) for config in tofu.CONFIGS]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints == [tofu.fingerprint(local, config) for config in tofu.CONFIGS]


def test_the_real_data() -> None:
    source = tofu.resolve_source(str(needs("tofu")))
    rows = {config: tofu.load(config, source) for config in tofu.CONFIGS}
    for forget, retain in tofu.FORGET_SPLITS.items():
        assert rows[retain] + rows[forget] == rows["full"]
        for row, perturbed in zip(rows[forget], rows[f"{forget}_perturbed"], strict=True):
            assert (row["question"], row["answer"]) == (perturbed["question"], perturbed["answer"])
            assert len(perturbed["perturbed_answer"]) == 5
