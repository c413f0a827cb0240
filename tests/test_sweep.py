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

from lm_eval_tofu import cli, evaluation, files
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.unlearn import sweep
from lm_eval_tofu.unlearn.unlearning import UnlearnConfig

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


def wait_for(condition: Any, seconds: float = 600) -> None:
    """Long enough for any machine: what never happens is what fails."""
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
        assert sweep.run_config(config, config.points[1], Path("out")) == UnlearnConfig(
            model="m",
            output=Path("out"),
            forget_split="forget10",
            tofu="mini",
            batch_size=4,
            retain_rows=tuple(range(40)),
            epochs=5,
            beta=0.1,
        )

    def test_values_that_are_no_plain_text(self, tmp_path: Path) -> None:
        """They reach `unlearn` as its command line takes them: JSON, true or false, several words."""
        values = {"template-args": {"date_string": "10 Apr 2025"}, "no_chat_template": False, "lr_scheduler_kwargs": {}}
        config = sweep.read_config(written(tmp_path, training={**values, "label_names": ["a", "b"], "revision": None}))
        run = sweep.run_config(config, config.points[0], Path("out"))
        assert run.template_args == {"date_string": "10 Apr 2025"}
        assert run.apply_chat_template
        assert run.training == {"lr_scheduler_kwargs": "{}", "label_names": ["a", "b"]}
        assert run.revision is None

    def test_keys_without_a_value(self, tmp_path: Path) -> None:
        path = tmp_path / "sweep.yaml"
        text = yaml.safe_dump(content(tmp_path / "sweep"), sort_keys=False)
        path.write_text(f"{text}training:\nevaluation:\nmethod:\ntofu:\n")
        assert sweep.read_config(path) == sweep.read_config(written(tmp_path))
        path.write_text(f"{text}evaluation:\n  model_args:\n  samples:\n")
        assert sweep.read_config(path).evaluation == sweep.EvaluationConfig()

    @pytest.mark.parametrize("preset", ["npo-54", "mini-54", "nano-54"])
    def test_the_presets_options(self, preset: str) -> None:
        """All of them exist, and each run is asked as it was trained."""
        sweep.check_options(sweep.read_config(preset, {"model": "m", "output": "o", "retain_reference": "r"}))

    def test_the_published_grid_asks_as_the_llama_presets_do(self) -> None:
        config = sweep.read_config("npo-54", {"model": "m", "output": "o", "retain_reference": "r"})
        preset = Path(sweep.__file__).parent.parent / "presets" / "lm_eval" / "llama-3.2-1b-instruct.yaml"
        llama = yaml.safe_load(preset.read_text(encoding="utf-8"))
        assert config.evaluation.system_instruction == llama["system_instruction"]
        assert config.evaluation.model_args["chat_template_args"] == llama["model_args"]["chat_template_args"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"grid": {"learning_rat": [1e-5]}}, "grid: learning_rat is no option: did you mean learning_rate?"),
            ({"training": {"warm_up": 1}}, "training: warm_up is no option: did you mean warmup?"),
            ({"training": {"xyzzy": 1}}, "training: xyzzy is no option: check its name"),
            (
                {"training": {"lr": 1e-5}, "grid": {"learning_rate": [1e-5]}},
                "lr says the same as learning_rate in grid",
            ),
            ({"training": {"model": "m2"}}, "training: model is no option of the runs: give the sweep's model"),
            (
                {"grid": {"forget-split": ["forget01"]}},
                "forget-split is no option of the runs: give the sweep's forget_split",
            ),
            ({"training": {"epochs": "five"}, "grid": {"beta": [0.1]}}, "epochs.*: invalid int value: 'five'"),
            ({"grid": {"beta": [0.1, -1]}}, "--beta -1.0 is not above 0"),
            ({"training": {"optim": "adamw_torhc"}}, "argument --optim: invalid choice: 'adamw_torhc'"),
            ({"training": {"load_best_model_at_end": True}}, "--load_best_model_at_end True: the trainer refuses"),
            ({"training": {"lora-r": 4, "no-lora-merge": True}}, "no-lora-merge writes adapters alone"),
            ({"training": {"system-prompt": "Be brief."}}, "evaluation.system_instruction is None, but .*'Be brief.'"),
            (
                {"evaluation": {"model_args": {"chat_template_args": {"date_string": "x"}}}},
                r"evaluation.model_args.chat_template_args is {'date_string': 'x'}, but the runs are trained with {}",
            ),
            ({"evaluation": {"apply_chat_template": False}}, "evaluation.apply_chat_template is False, but .* True"),
        ],
    )
    def test_options_that_no_run_could_use(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        config = sweep.read_config(written(tmp_path, **changes))
        with pytest.raises(OptionError, match=message) as caught:
            sweep.check_options(config)
        assert "\n" not in str(caught.value)

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
            ({"evaluation": "hf"}, "evaluation='hf' is no mapping of options to values"),
            ({"evaluation": {"model_args": "dtype=float32"}}, "evaluation.model_args='dtype=float32' is no mapping"),
            ({"training": ["lr"]}, r"training=\['lr'\] is no mapping of options to values"),
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

    @pytest.mark.parametrize(
        "url", ["nonsense://me:secret@127.0.0.1:1/x", "nonsense://h/x?password=secret", "postgresql://me:secret@h:x/x"]
    )
    def test_a_password_is_not_shown(self, config_file: Path, url: str) -> None:
        """The last one has no number for a port, which SQLAlchemy reports with the whole URL."""
        with pytest.raises(OptionError, match=r"--storage .*\*\*\*.* cannot be opened") as caught:
            sweep.open_queue(sweep.read_config(config_file), url)
        assert "secret" not in str(caught.value)

    def test_a_queue_of_another_release_of_optuna(self, config_file: Path) -> None:
        import sqlite3

        config = sweep.read_config(config_file)
        sweep.open_queue(config)
        with sqlite3.connect(config.folder / "sweep.db") as database:
            database.execute("update alembic_version set version_num = 'v2.6.0.a'")
        with pytest.raises(
            OptionError, match=r"is of another release of Optuna .*run optuna storage upgrade"
        ) as caught:
            sweep.open_queue(config)
        assert "\n" not in str(caught.value)

    def test_a_storage_that_fails_in_the_middle(self, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from sqlalchemy.exc import OperationalError

        def fail(*_: Any) -> None:
            raise OperationalError("statement", {}, Exception("database is locked"))

        monkeypatch.setattr(sweep, "check", lambda _: None)
        monkeypatch.setattr(sweep, "runs", fail)
        with pytest.raises(OptionError, match=r"--storage sqlite:.* failed \(.*database is locked\): run the same"):
            sweep.sweep(sweep.read_config(config_file))

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


def test_a_reference_that_was_asked_otherwise_is_found_before_the_first_run(tiny_model: Path, tmp_path: Path) -> None:
    """Its rows and split fit, its prompts do not: each run would be trained, and fail in its evaluation."""
    data = {"tofu": "mini", "forget_split": "forget01"}
    settings = {"metadata": data, "tasks": ["tofu_forget_quality"], "batch_size": 8, "device": "cpu"}
    settings["model_args"] = {"dtype": "float32"}
    evaluation.evaluate(tiny_model, tmp_path / "retain", **settings, system_instruction="Be brief.")
    changes = {**data, "model": str(tiny_model), "retain_reference": str(tmp_path / "retain")}
    config = sweep.read_config(written(tmp_path, **changes))
    with pytest.raises(
        ReferenceRunError, match=r"asked row 0 with another prompt: .*this sweep asks with evaluation\.system_i"
    ):
        sweep.sweep(config)
    assert not config.folder.exists()
    asked = {"training": {"system_prompt": "Be brief."}, "evaluation": {"system_instruction": "Be brief."}}
    sweep.check(sweep.read_config(written(tmp_path, **changes, **asked)))


@pytest.mark.parametrize("words", [["stats", "sweep.yaml"], ["status", "a", "b"]])
def test_unknown_action(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", *words]) == 2
    assert "give SWEEP.yaml, or status SWEEP.yaml" in capsys.readouterr().err


def test_a_path_after_which_no_results_can_be_named_is_found_before_the_first_run(
    tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"model": str(tiny_model), "tofu": "mini", "output": str(tmp_path / "/".join(["x" * 60] * 4))}
    with pytest.raises(OptionError, match=r"output: the model .*model makes a name of \d+ bytes"):
        sweep.check(sweep.read_config(written(tmp_path, **changes)))
