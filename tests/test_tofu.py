"""The data set: where it comes from, and what is said of data that are not TOFU."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import tofu_data

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
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mini").mkdir()
        assert tofu.resolve_source("mini") == tofu.Source("mini", "mini")
        assert tofu.resolve_source("./mini") == tofu.Source("local", str((tmp_path / "mini").resolve()))
        assert tofu.resolve_source(str(tmp_path)) == tofu.Source("local", str(tmp_path.resolve()))
        assert tofu.resolve_source() == tofu.Source("hub", "locuslab/TOFU", "main")
        assert tofu.resolve_source("someone/TOFU", "abc") == tofu.Source("hub", "someone/TOFU", "abc")
        assert str(tofu.resolve_source("someone/TOFU", "abc")) == "someone/TOFU@abc"
        monkeypatch.setenv("LM_EVAL_TOFU_DATA", "")
        assert tofu.resolve_source("").kind == "hub"
        monkeypatch.setenv("LM_EVAL_TOFU_DATA", "mini")
        assert tofu.resolve_source().kind == "mini"
        assert tofu.resolve_source(str(tmp_path)).kind == "local"

    @pytest.mark.parametrize(
        "name", ["/no/such/place", "./here", "nowhere", "a/b/c", "~nobody-of-that-name/tofu", "x" * 5000, "a\0b"]
    )
    def test_nonsense(self, name: str) -> None:
        with pytest.raises(DataError, match="is no directory and no hub id: name a directory") as caught:
            tofu.resolve_source(name)
        assert str(caught.value).startswith(f"tofu={name!r}")
        assert "\n" not in str(caught.value)

    def test_nonsense_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LM_EVAL_TOFU_DATA", "nowhere")
        with pytest.raises(DataError, match="LM_EVAL_TOFU_DATA='nowhere'"):
            tofu.resolve_source()

    def test_local_sources_have_no_revision(self, tmp_path: Path) -> None:
        for name in ("mini", str(tmp_path)):
            with pytest.raises(DataError, match=r"revision='abc' belongs to the hub, but .* leave it"):
                tofu.resolve_source(name, "abc")

    def test_retain_splits(self) -> None:
        assert [tofu.retain_split(f"forget{n}") for n in ("01", "05", "10")] == ["retain99", "retain95", "retain90"]
        for name in ("forget20", "retain90", ["forget10"], {}, 10):
            with pytest.raises(
                OptionError, match=r"forget_split=.* is unknown: use one of forget01, forget05, forget10"
            ):
                tofu.retain_split(name)

    def test_hub_out_of_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Offline (conftest.py sets HF_HUB_OFFLINE=1) no connection is tried, and the original error is kept."""

        tried: list[Any] = []
        for name in ("socket.socket.connect", "socket.socket.connect_ex", "socket.getaddrinfo", "time.sleep"):
            monkeypatch.setattr(name, lambda *args, **kwargs: tried.append(args))
        with pytest.raises(DataError, match=r"^nobody/no-such-data@v1 cannot be read .* name the directory") as caught:
            tofu.load("full", tofu.resolve_source("nobody/no-such-data", "v1"))
        assert not tried
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None

    def test_hub_rows_are_checked_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []

        def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, str]]:
            asked.append((args, kwargs))
            return [{"question": "Who?", "answer": "She."}] * 39

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        with pytest.raises(DataError, match="'forget01' has 39 rows instead of 40"):
            tofu.load("forget01", tofu.resolve_source("someone/TOFU", "v2"))
        assert asked == [(("someone/TOFU", "forget01"), {"split": "train", "revision": "v2"})]

    def test_directories_of_one_relative_name(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two directories that are both named locuslab/TOFU, seen from two working directories, are two sources."""
        answers = []
        for name in ("first", "second"):
            work = tmp_path_factory.mktemp(name)
            place = shutil.copytree(folder, work / "locuslab" / "TOFU")
            rows = [json.loads(line) for line in (place / "forget01.json").read_text(encoding="utf-8").splitlines()]
            text = "".join(json.dumps({**row, "answer": name}) + "\n" for row in rows)
            (place / "forget01.json").write_text(text, encoding="utf-8")
            monkeypatch.chdir(work)
            source = tofu.resolve_source("locuslab/TOFU")
            assert (source.kind, Path(source.location).is_absolute()) == ("local", True)
            answers.append(tofu.load("forget01", source)[0]["answer"])
        assert answers == ["first", "second"]

    def test_local_sources_need_no_network(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("the network was touched")

        monkeypatch.setattr(socket.socket, "connect", refused)
        monkeypatch.setattr("datasets.load_dataset", refused)
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

    @pytest.mark.parametrize("value", [None, "", 7, ["a"]])
    def test_column_that_is_no_text(self, folder: Path, value: Any) -> None:
        path = folder / "forget01.json"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows[2]["answer"] = value
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        problem = "lacks the column 'answer': fetch" if value is None else "the column 'answer' is not a text"
        refuse(folder, "forget01", f"row 2.* {problem}")

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

    def test_empty_file(self, folder: Path) -> None:
        (folder / "full.json").write_bytes(b"")
        refuse(folder, "full", "'full' has 0 rows instead of 400")

    def test_pointer_of_git_lfs(self, folder: Path) -> None:
        (folder / "full.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        refuse(folder, "full", r"full.json, line 1: not JSON .*fetch it anew")

    def test_layout_that_json_does_not_care_for(self, folder: Path) -> None:
        """An empty first line, a byte order mark and the line ends of Windows change nothing; lines still count."""
        path = folder / "forget01.json"
        expected, content = tofu.load("forget01", tofu.resolve_source("mini")), path.read_bytes()
        for changed in (b"\n" + content, b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n")):
            tofu._load.cache_clear()
            path.write_bytes(changed)
            assert tofu.load("forget01", tofu.resolve_source(str(folder))) == expected
        tofu._load.cache_clear()
        path.write_bytes(b"\n\n{cut")
        refuse(folder, "forget01", "forget01.json, line 3: not JSON")

    def test_a_mended_file_is_read_again(self, folder: Path) -> None:
        path = folder / "forget01.json"
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        refuse(folder, "forget01", "line 4: not JSON")
        path.write_bytes(content)
        assert len(tofu.load("forget01", tofu.resolve_source(str(folder)))) == 4

    def test_row_that_is_no_object(self, folder: Path) -> None:
        (folder / "forget01.json").write_text("[1]\n[2]\n[3]\n[4]\n")
        refuse(folder, "forget01", "forget01.json, line 1: a list instead of a JSON object: .* fetch it anew")

    def test_unknown_configuration(self) -> None:
        with pytest.raises(OptionError, match="configuration 'forget20' is unknown: use one of full"):
            tofu.load("forget20", tofu.resolve_source("mini"))


def test_loaded_rows_are_the_callers_own() -> None:
    source = tofu.resolve_source("mini")
    row = tofu.load("forget01_perturbed", source)[0]
    row["question"] = "changed"
    row["perturbed_answer"].append("changed")
    again = tofu.load("forget01_perturbed", source)[0]
    assert again["question"] != "changed"
    assert "changed" not in again["perturbed_answer"]


def test_fingerprints_tell_contents_apart_and_not_places(folder: Path) -> None:
    mini, local = tofu.resolve_source("mini"), tofu.resolve_source(str(folder))
    fingerprints = [tofu.fingerprint(mini, config) for config in tofu.CONFIGS]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints == [tofu.fingerprint(local, config) for config in tofu.CONFIGS]


def test_fingerprints_follow_the_content_and_not_its_layout(folder: Path) -> None:
    before = tofu.fingerprint(tofu.resolve_source(str(folder)), "forget01")
    path = folder / "forget01.json"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tofu._load.cache_clear()
    path.write_text("\n".join(json.dumps({**row, "note": 1}, sort_keys=True) for row in rows))
    assert tofu.fingerprint(tofu.resolve_source(str(folder)), "forget01") == before
    tofu._load.cache_clear()
    rows[3]["answer"] += " "
    path.write_text("\n".join(map(json.dumps, rows)))
    assert tofu.fingerprint(tofu.resolve_source(str(folder)), "forget01") != before


@pytest.mark.parity
def test_the_real_data() -> None:
    source = tofu.resolve_source(tofu_data())
    rows = {config: tofu.load(config, source) for config in tofu.CONFIGS}
    assert {config: len(rows[config]) for config in rows} == {name: c.rows for name, c in tofu.CONFIGS.items()}
    assert all(set(c.columns) == set(row) for name, c in tofu.CONFIGS.items() for row in rows[name])
    for forget, retain in tofu.FORGET_SPLITS.items():
        assert rows[retain] + rows[forget] == rows["full"]
        for row, perturbed in zip(rows[forget], rows[f"{forget}_perturbed"], strict=True):
            assert (row["question"], row["answer"]) == (perturbed["question"], perturbed["answer"])
            assert len(perturbed["perturbed_answer"]) == 5
    retained = {(row["question"], row["answer"]) for row in rows["retain90"]}
    assert all((row["question"], row["answer"]) in retained for row in rows["retain_perturbed"])
    for name in ("real_authors", "world_facts"):
        for row, perturbed in zip(rows[name], rows[f"{name}_perturbed"], strict=True):
            assert (row["question"], row["answer"]) == (perturbed["question"], perturbed["answer"])
            assert len(perturbed["perturbed_answer"]) == 3
    fingerprints = [tofu.fingerprint(source, config) for config in tofu.CONFIGS]
    assert len(set(fingerprints)) == len(fingerprints)
    # Records of checkpoints and reports hold it, so it must not change from version to version.
    assert tofu.fingerprint(source, "forget10_perturbed") == "39e1924e40df6912"


def test_where_the_real_data_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LM_EVAL_TOFU_DATA, the directory beside the checkout, the hub, or a skip that says what to do."""
    monkeypatch.setattr("conftest.SHARED", tmp_path)
    monkeypatch.setenv("TESTS_TOFU_DATA", "")
    with pytest.raises(pytest.skip.Exception, match="name a copy of locuslab/TOFU in LM_EVAL_TOFU_DATA"):
        tofu_data()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert tofu_data() == tofu.HUB_ID
    (tmp_path / "tofu").mkdir()
    assert tofu_data() == str(tmp_path / "tofu")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for named, expected in (("mine", str(tmp_path / "mine")), ("someone/TOFU", "someone/TOFU")):
        monkeypatch.setenv("TESTS_TOFU_DATA", named)
        assert tofu_data() == expected


class TestRevisions:
    """A revision is what was loaded, or it is refused; a copy in the cache is of one commit."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture(autouse=True)
    def cached(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """As `datasets` does without a network: it returns the copy that is there, whatever revision is asked for."""

        class Rows(list[dict[str, str]]):
            cache_files: ClassVar = [{"filename": f"/c/locuslab___tofu/forget01/0.0.0/{self.COMMIT}/tofu-train.arrow"}]

        rows = Rows({"question": f"q{number}", "answer": "a"} for number in range(40))
        monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: rows)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        tofu._load.cache_clear()
        tofu._commits.clear()

    @pytest.mark.parametrize("revision", [None, "main", COMMIT])
    def test_the_commit_is_known(self, revision: str | None) -> None:
        source = tofu.resolve_source("locuslab/TOFU", revision)
        assert tofu.commit_of(source) is None
        tofu.load("forget01", source)
        assert tofu.commit_of(source) == self.COMMIT

    @pytest.mark.parametrize(
        ("revision", "message"),
        [
            ("no-such-tag", r"tofu_revision=no-such-tag cannot be resolved .* the copy .* is commit 01"),
            ("f" * 40, r"tofu_revision=f{40} is commit f{40}, and the copy .* is commit 01"),
        ],
    )
    def test_another_revision_than_the_copys(self, revision: str, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            tofu.load("forget01", tofu.resolve_source("locuslab/TOFU", revision))
        assert "\n" not in str(caught.value)

    def test_a_tag_that_an_earlier_download_noted(self, tmp_path: Path) -> None:
        refs = tmp_path / "datasets--locuslab--TOFU" / "refs"
        refs.mkdir(parents=True)
        (refs / "v1").write_text(self.COMMIT)
        (refs / "v2").write_text("f" * 40)
        tofu.load("forget01", tofu.resolve_source("locuslab/TOFU", "v1"))
        with pytest.raises(DataError, match="tofu_revision=v2 is commit f"):
            tofu.load("forget01", tofu.resolve_source("locuslab/TOFU", "v2"))
