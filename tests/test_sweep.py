"""Sweeps: the configuration, the queue under real workers, and what they leave behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_tofu import cli, evaluation, files
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.unlearn import sweep, sweep_config
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
        config = sweep_config.read_config("npo-54", {"model": "m", "output": "o", "retain_reference": "r"})
        assert len(config.points) == 54
        assert config.points[0] == {"epochs": 5, "learning_rate": 1e-5, "alpha": 1, "beta": 0.05}
        assert {"epochs": 10, "learning_rate": 5e-5, "alpha": 1, "beta": 0.1} in config.points
        assert len({sweep_config.name_of(point) for point in config.points}) == 54
        assert (config.method, config.forget_split) == ("npo", "forget10")

    def test_the_command_lines_values_go_before_the_files(self, config_file: Path) -> None:
        config = sweep_config.read_config(config_file, {"model": "other", "tofu": None})
        assert (config.model, config.retain_reference, config.tofu) == ("other", "r", None)

    def test_the_kept_configuration_is_the_same(self, config_file: Path, tmp_path: Path) -> None:
        config = sweep_config.read_config(config_file)
        files.write_json(config.folder / "sweep.json", asdict(config))
        assert sweep_config.load_config(config.folder) == config

    def test_a_sweep_by_its_directory(self, config_file: Path, tmp_path: Path) -> None:
        config = sweep_config.read_config(config_file)
        config.folder.mkdir()
        files.write_json(config.folder / "sweep.json", asdict(config))
        assert sweep_config.read_config(config.folder) == config
        moved = config.folder.rename(tmp_path / "moved")
        again = sweep_config.read_config(moved)
        assert again == replace(config, output=str(moved))

    def test_arguments_of_a_run(self, tmp_path: Path) -> None:
        path = written(tmp_path, training={"batch_size": 4, "retain_rows": "0-39"}, tofu="mini")
        config = sweep_config.read_config(path)
        assert sweep_config.run_config(config, config.points[1], Path("out")) == UnlearnConfig(
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
        config = sweep_config.read_config(
            written(tmp_path, training={**values, "label_names": ["a", "b"], "revision": None})
        )
        run = sweep_config.run_config(config, config.points[0], Path("out"))
        assert run.template_args == {"date_string": "10 Apr 2025"}
        assert run.apply_chat_template
        assert run.training == {"lr_scheduler_kwargs": "{}", "label_names": ["a", "b"]}
        assert run.revision is None

    def test_keys_without_a_value(self, tmp_path: Path) -> None:
        path = tmp_path / "sweep.yaml"
        text = yaml.safe_dump(content(tmp_path / "sweep"), sort_keys=False)
        path.write_text(f"{text}training:\nevaluation:\nmethod:\ntofu:\n")
        assert sweep_config.read_config(path) == sweep_config.read_config(written(tmp_path))
        path.write_text(f"{text}evaluation:\n  model_args:\n  samples:\n")
        assert sweep_config.read_config(path).evaluation == sweep_config.EvaluationConfig()

    @pytest.mark.parametrize("preset", ["npo-54", "mini-54", "nano-54"])
    def test_the_presets_options(self, preset: str) -> None:
        """All of them exist, and each run is asked as it was trained."""
        sweep_config.check_options(
            sweep_config.read_config(preset, {"model": "m", "output": "o", "retain_reference": "r"})
        )

    def test_the_published_grid_asks_as_the_llama_presets_do(self) -> None:
        config = sweep_config.read_config("npo-54", {"model": "m", "output": "o", "retain_reference": "r"})
        preset = Path(sweep_config.__file__).parent.parent / "presets" / "lm_eval" / "llama-3.2-1b-instruct.yaml"
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
                "lr is the same option as learning_rate in grid",
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
        config = sweep_config.read_config(written(tmp_path, **changes))
        with pytest.raises(OptionError, match=message) as caught:
            sweep_config.check_options(config)
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
            ({"training": {"beta": 1}}, "beta is in grid and in training: leave it out of training"),
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
            sweep_config.read_config(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["- a list", "{", "\x00"])
    def test_files_that_are_none(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        with pytest.raises(OptionError, match=r"cannot be read|is no mapping"):
            sweep_config.read_config(path)

    def test_no_file(self) -> None:
        with pytest.raises(OptionError, match=r"'npo-55' is no file, .* and no preset \(.*npo-54.*\): name one"):
            sweep_config.read_config("npo-55")


class TestQueue:
    """Real workers on a real queue; each run takes 0.3 s and writes results without a model."""

    def test_two_workers_share_the_runs(self, config_file: Path, tmp_path: Path) -> None:
        workers = [start(config_file), start(config_file)]
        assert [worker.wait(120) for worker in workers] == [0, 0]
        folder = tmp_path / "sweep"
        names = [sweep_config.name_of(point) for point in sweep_config.read_config(config_file).points]
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
                sweep.sweep(sweep_config.read_config(config_file, changed))
        assert len(begun(tmp_path / "sweep")) == 6

    def test_a_worker_on_another_machine(self, tmp_path: Path) -> None:
        """It sees the shared directory under another path, and names it in a file of its own."""
        folder = tmp_path / "sweep"
        folder.mkdir()
        (tmp_path / "mounted").symlink_to(folder, target_is_directory=True)
        here = written(tmp_path, training={"pause": 0.3})
        there = tmp_path / "there.yaml"
        settings = yaml.safe_load(here.read_text())
        there.write_text(yaml.safe_dump({**settings, "output": str(tmp_path / "mounted")}, sort_keys=False))
        workers = [start(here), start(there)]
        assert [worker.wait(120) for worker in workers] == [0, 0]
        names = begun(folder)
        assert len(names) == len(set(names)) == 6
        assert all(found.state == "complete" for found in sweep.runs(sweep_config.read_config(there)))

    def test_runs_of_a_machine_that_shares_no_directory(self, config_file: Path, tmp_path: Path) -> None:
        """It works on a part of the grid; copied in, its runs are complete, and their records stay as they are."""
        part = tmp_path / "part.yaml"
        settings = {**yaml.safe_load(config_file.read_text()), "output": str(tmp_path / "elsewhere")}
        part.write_text(yaml.safe_dump({**settings, "grid": {**GRID, "epochs": [10]}}, sort_keys=False))
        assert start(part).wait(120) == 0
        folder = tmp_path / "sweep"
        shutil.copytree(tmp_path / "elsewhere" / "runs", folder / "runs")
        records = {path: path.read_text() for path in folder.glob("runs/*/run.json")}
        assert [found.state for found in sweep.runs(sweep_config.read_config(config_file))] == [
            *["waiting"] * 3,
            *["complete"] * 3,
        ]
        assert start(config_file).wait(120) == 0
        assert begun(folder) == ["epochs5-beta0.05", "epochs5-beta0.1", "epochs5-beta0.5"]
        assert len(records) == 3
        assert all(path.read_text() == text for path, text in records.items())

    def test_a_run_without_its_results_is_made_again(self, config_file: Path, tmp_path: Path) -> None:
        assert start(config_file).wait(120) == 0
        folder = tmp_path / "sweep"
        shutil.rmtree(folder / "runs" / "epochs5-beta0.1" / "results")
        assert start(config_file).wait(120) == 0
        assert len(begun(folder)) == 7
        assert begun(folder)[-1] == "epochs5-beta0.1"

    def test_status_writes_nothing(self, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["sweep", "status", str(config_file)]) == 0
        assert "0 complete, 0 running, 6 waiting, 0 failed" in capsys.readouterr().out
        assert not (tmp_path / "sweep").exists()

    def test_status_of_a_running_and_a_killed_worker(self, tmp_path: Path) -> None:
        config_file, folder = written(tmp_path, training={"pause": 60}), tmp_path / "sweep"
        config = sweep_config.read_config(config_file)
        worker = start(config_file)
        wait_for(lambda: len(begun(folder)) == 1)
        first, *others = sweep.runs(config)
        assert first.state == "running"
        assert first.seconds is not None
        assert 0 <= first.seconds < 60
        assert {found.state for found in others} == {"waiting"}
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        assert {found.state for found in sweep.runs(config)} == {"waiting"}

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

    def test_unknown_keep(self, config_file: Path) -> None:
        with pytest.raises(OptionError, match="--keep 'some' is unknown: use all, best, none"):
            sweep.sweep(sweep_config.read_config(config_file), keep="some")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_bad_model_and_reference_are_found_before_the_first_run(tmp_path: Path) -> None:
    config = sweep_config.read_config(written(tmp_path, model="/no/such/model"))
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
    config = sweep_config.read_config(written(tmp_path, **changes))
    with pytest.raises(
        ReferenceRunError, match=r"asked row 0 with another prompt: .*this sweep asks with evaluation\.system_i"
    ):
        sweep.sweep(config)
    assert not config.folder.exists()
    asked = {"training": {"system_prompt": "Be brief."}, "evaluation": {"system_instruction": "Be brief."}}
    sweep_config.check(sweep_config.read_config(written(tmp_path, **changes, **asked)))


@pytest.mark.parametrize("words", [["stats", "sweep.yaml"], ["status", "a", "b"]])
def test_unknown_action(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", *words]) == 2
    assert "give SWEEP.yaml, or status SWEEP.yaml" in capsys.readouterr().err


def test_a_path_after_which_no_results_can_be_named_is_found_before_the_first_run(
    tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"model": str(tiny_model), "tofu": "mini", "output": str(tmp_path / "/".join(["x" * 60] * 4))}
    with pytest.raises(OptionError, match=r"output: the model .*model makes a name of \d+ bytes"):
        sweep_config.check(sweep_config.read_config(written(tmp_path, **changes)))
