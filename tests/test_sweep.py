"""Sweeps: the configuration, the queue under real workers, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_tofu import cli, files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import sweep, trial

WORKER = Path(__file__).with_name("sweep_worker.py")
GRID = {"epochs": [5, 10], "beta": [0.05, 0.1, 0.5]}


def content(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"model": "m", "output": str(folder), "retain_reference": "r", "grid": GRID, **changes}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return written(tmp_path, training={"pause": 0.3})


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content(tmp_path / "sweep", **changes), sort_keys=False))
    return path


def start(config_file: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(WORKER), str(config_file), *more], stderr=subprocess.DEVNULL)


def begun(folder: Path) -> list[str]:
    path = folder / "begun"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.is_file() else []


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class TestConfig:
    """Reading a sweep's file."""

    def test_the_published_grid(self) -> None:
        config = sweep.read_config("npo-54", {"model": "m", "output": "o", "retain_reference": "r"})
        assert len(config.points) == 54
        assert config.points[0] == {"epochs": 5, "learning_rate": 1e-5, "alpha": 1, "beta": 0.05}
        assert {"epochs": 10, "learning_rate": 5e-5, "alpha": 1, "beta": 0.1} in config.points
        assert len({sweep.name_of(point) for point in config.points}) == 54
        assert (config.method, config.forget_split) == ("npo", "forget10")

    def test_the_command_lines_values_go_before_the_files(self, config_file: Path) -> None:
        config = sweep.read_config(config_file, {"model": "other", "tofu": None})
        assert (config.model, config.retain_reference, config.tofu) == ("other", "r", None)

    def test_the_kept_configuration_is_the_same(self, config_file: Path, tmp_path: Path) -> None:
        config = sweep.read_config(config_file)
        files.write_json(tmp_path / "kept.json", json.loads(json.dumps(sweep.asdict(config))))
        assert sweep.load_config(tmp_path / "kept.json") == config

    def test_a_sweep_by_its_directory(self, config_file: Path, tmp_path: Path) -> None:
        config = sweep.read_config(config_file)
        config.folder.mkdir()
        files.write_json(config.folder / "sweep.json", sweep.asdict(config))
        assert sweep.read_config(config.folder) == config
        moved = config.folder.rename(tmp_path / "moved")
        again = sweep.read_config(moved)
        assert (again.output, again.study, again.points) == (str(moved), config.study, config.points)

    def test_arguments_of_a_run(self, tmp_path: Path) -> None:
        path = written(tmp_path, training={"batch_size": 4, "retain_rows": "0-39"}, tofu="mini")
        config = sweep.read_config(path)
        given = trial.arguments(config, config.points[1], Path("out"))
        pairs = dict(zip(given[::2], given[1::2], strict=True))
        assert pairs == {
            "--model": "m",
            "--output": "out",
            "--method": "npo",
            "--forget-split": "forget10",
            "--tofu": "mini",
            "--batch_size": "4",
            "--retain_rows": "0-39",
            "--epochs": "5",
            "--beta": "0.1",
        }

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"modell": "m"}, "'modell' is unknown: use model, output"),
            ({"model": None}, "model is missing: give it there or as --model"),
            ({"retain_reference": ""}, "retain_reference is missing: give it there or as --retain-reference"),
            ({"grid": {}}, "grid is missing"),
            ({"grid": {"beta": 0.1}}, "is no mapping of options to lists of values"),
            ({"grid": {"beta": []}}, "is no mapping of options to lists of values"),
            ({"grid": {"beta": [0.1, 0.1]}}, "names a value twice: name each once"),
            ({"training": {"beta": 1}}, "beta stands in grid and in training: leave it out of training"),
            ({"forget_split": "forget20"}, "forget_split='forget20' is unknown: use forget01, forget05, forget10"),
            ({"evaluation": {"backend": "gguf"}}, "evaluation.backend='gguf' is unknown: use hf or vllm"),
            ({"evaluation": {"batchsize": 8}}, "evaluation.batchsize is unknown: use backend"),
            ({"evaluation": {"samples": [1]}}, r"evaluation.samples=\[1\] names no documents by task"),
            ({"evaluation": {"samples": {"tofu": [-1]}}}, "evaluation.samples=.* names no documents by task"),
        ],
    )
    def test_bad_values(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        path = written(tmp_path, **changes)
        with pytest.raises(OptionError, match=message) as caught:
            sweep.read_config(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["- a list", "{", "\x00"])
    def test_files_that_are_none(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        with pytest.raises(OptionError, match=r"cannot be read|is no mapping"):
            sweep.read_config(path)

    def test_no_file(self) -> None:
        with pytest.raises(OptionError, match=r"'npo-55' is no file, .* and no preset \(.*npo-54.*\): name one"):
            sweep.read_config("npo-55")


class TestQueue:
    """Real workers on a real queue; each run takes 0.3 s and writes results without a model."""

    def test_two_workers_share_the_runs(self, config_file: Path, tmp_path: Path) -> None:
        workers = [start(config_file), start(config_file)]
        assert [worker.wait(120) for worker in workers] == [0, 0]
        folder = tmp_path / "sweep"
        names = [sweep.name_of(point) for point in sweep.read_config(config_file).points]
        assert sorted(begun(folder)) == sorted(names)
        lines = (folder / "begun").read_text().splitlines()
        assert len({line.split()[1] for line in lines}) == 6
        for name in names:
            record = json.loads((folder / "runs" / name / "run.json").read_text())
            assert record["metrics"]["forget_quality"] == record["point"]["beta"] / 10
            assert record["seconds"] > 0

    def test_a_killed_worker_loses_only_its_run(self, tmp_path: Path) -> None:
        """Its child ends with it, the other worker takes the run up again, and nothing that was finished is redone."""
        config_file, folder = written(tmp_path, training={"pause": 1.5}), tmp_path / "sweep"
        doomed = start(config_file)
        wait_for(lambda: len(begun(folder)) == 2)
        child = int((folder / "begun").read_text().splitlines()[1].split()[1])
        doomed.send_signal(signal.SIGKILL)
        doomed.wait(10)
        wait_for(lambda: not _alive(child), 10)
        assert start(config_file).wait(120) == 0
        first, second = begun(folder)[:2]
        counts = {name: begun(folder).count(name) for name in begun(folder)}
        assert len(counts) == 6
        assert counts[first] == 1
        assert counts[second] == 2
        assert sum(counts.values()) == 7

    def test_a_finished_sweep_does_nothing(self, config_file: Path, tmp_path: Path) -> None:
        assert start(config_file).wait(120) == 0
        assert start(config_file).wait(60) == 0
        assert len(begun(tmp_path / "sweep")) == 6

    def test_finished_runs_of_another_sweep_are_not_taken_for_its_own(self, config_file: Path, tmp_path: Path) -> None:
        assert start(config_file).wait(120) == 0
        for changed in ({"model": "other"}, {"method": "grad_diff"}, {"retain_reference": "elsewhere"}):
            [(name, value)] = changed.items()
            with pytest.raises(OptionError, match=rf"{name} is '{value}', but was .* go on with the same, or name"):
                sweep.sweep(sweep.read_config(config_file, changed))
        assert len(begun(tmp_path / "sweep")) == 6

    def test_without_its_queue_a_finished_sweep_is_not_made_again(self, config_file: Path, tmp_path: Path) -> None:
        """Nor are its records, which say when each run was made and how long it took."""
        assert start(config_file).wait(120) == 0
        folder = tmp_path / "sweep"
        records = {path: path.read_text() for path in folder.glob("runs/*/run.json")}
        for path in folder.glob("sweep.db*"):
            path.unlink()
        assert start(config_file).wait(60) == 0
        assert len(begun(folder)) == len(records) == 6
        assert all(path.read_text() == text for path, text in records.items())

    def test_a_failed_run_says_why_and_is_tried_again_by_the_next_call(
        self, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "sweep"
        folder.mkdir()
        (folder / "fail").write_text("epochs5-beta0.1")
        assert start(config_file).wait(120) == 1
        assert cli.main(["sweep", "status", str(config_file)]) == 1
        shown = capsys.readouterr().out
        [line] = [line for line in shown.splitlines() if line.startswith("epochs5-beta0.1 ")]
        assert "failed" in line
        assert "the disk is full (the whole log: " in line
        assert "5 complete, 0 running, 0 waiting, 1 failed" in shown
        (folder / "fail").unlink()
        assert start(config_file).wait(60) == 0
        assert cli.main(["sweep", "status", str(config_file)]) == 0
        assert "6 complete, 0 running, 0 waiting, 0 failed" in capsys.readouterr().out
        assert len(begun(folder)) == 7

    def test_only_the_best_checkpoint_is_kept(self, config_file: Path, tmp_path: Path) -> None:
        assert start(config_file, "best").wait(120) == 0
        kept = [path.parent.name for path in (tmp_path / "sweep" / "runs").glob("*/model")]
        assert kept == ["epochs10-beta0.5"]
        assert len(list((tmp_path / "sweep" / "runs").glob("*/results"))) == 6

    def test_a_creator_that_died_before_it_had_queued_all(
        self, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import optuna

        config = sweep.read_config(config_file)
        monkeypatch.setattr(sweep, "_PATIENCE", 0.5)
        config.folder.mkdir()
        half = optuna.create_study(storage=sweep.default_storage(config), study_name=config.study)
        half.enqueue_trial(config.points[0], user_attrs={"point": 0})
        states = sweep.runs(config, sweep.open_queue(config))
        assert [state.state for state in states] == ["waiting"] * 6

    def test_an_unreachable_storage(self, config_file: Path) -> None:
        config = sweep.read_config(config_file)
        for url in ("sqlite:////no/such/place/at.db", "nonsense://", "nonsense"):
            with pytest.raises(OptionError, match=f"--storage {url} cannot be opened .*give for example sqlite"):
                sweep.open_queue(config, url)

    def test_unknown_keep(self, config_file: Path) -> None:
        with pytest.raises(OptionError, match="--keep 'some' is unknown: use all, best, none"):
            sweep.sweep(sweep.read_config(config_file), keep="some")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_bad_model_and_reference_are_found_before_the_first_run(tmp_path: Path) -> None:
    config = sweep.read_config(written(tmp_path, model="/no/such/model"))
    with pytest.raises(OptionError, match="--model /no/such/model is no directory"):
        sweep.sweep(config)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("words", [["stats", "sweep.yaml"], ["status", "a", "b"]])
def test_unknown_action(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", *words]) == 2
    assert "give SWEEP.yaml, or status SWEEP.yaml" in capsys.readouterr().err
