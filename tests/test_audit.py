"""One command for a whole audit: the order of its steps, what it runs again, refusals, and a killed run for real."""

import json
import logging
import random
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import made_results as made
import pytest

from lm_eval_tofu import cli, files
from lm_eval_tofu.audit import run
from lm_eval_tofu.audit.options import LEVELS, AuditOptions, parse_models
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.report import figures
from lm_eval_tofu.whitebox import results


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """Arms with weights of their own, which no test loads."""
    arms = {}
    for number, arm in enumerate(("base", "full", "retain", "unlearned")):
        shutil.copytree(tiny_model, tmp_path / "models" / arm)
        (tmp_path / "models" / arm / "model.safetensors").write_bytes(bytes([number]) * 100)
        arms[arm] = str(tmp_path / "models" / arm)
    return arms


class Commands:
    """Stands in for the processes: writes the results that a command would write, and can fail."""

    def __init__(self) -> None:
        """Nothing was run yet."""
        self.run: list[list[str]] = []
        self.fails_at: str | None = None

    def __call__(self, command: Sequence[str], record: Path, bar: Any) -> int:
        """Do what a step's command does."""
        self.run.append(list(command))
        record.parent.mkdir(parents=True, exist_ok=True)
        if self.fails_at is not None and self.fails_at in " ".join(command):
            record.write_text("Traceback\nRuntimeError: Engine core died\n")
            return 1
        folder = Path(self.of(command, "output_path" if command[0] == "lm_eval" else "output"))
        if command[0] == "lm_eval":
            model = json.loads(self.of(command, "model_args"))["pretrained"]
            clock = f"2026-01-02T03-04-{len(self.run):02}.000000"
            tasks = tuple(self.of(command, "tasks").split(","))
            made.write(folder, tasks=tasks, model=model, time=clock, arm={"weights": weights_fingerprint(Path(model))})
        else:
            task = f"tofu_{command[1]}"
            results.write(folder, task, {}, model="m", n=1, metadata={"forget_split": "forget10"}, details={})
        return 0

    def of(self, command: Sequence[str], name: str) -> str:
        """The value of an option."""
        return command[command.index(f"--{name}") + 1]

    def steps(self) -> list[str]:
        """What was run since the last call: arm, and the tool or the number of tasks."""
        found = []
        for command in self.run:
            is_evaluation = command[0] == "lm_eval"
            model = json.loads(self.of(command, "model_args"))["pretrained"] if is_evaluation else None
            arm = Path(model or self.of(command, "model")).name
            found.append(f"{arm} {len(self.of(command, 'tasks').split(',')) if is_evaluation else command[1]}")
        self.run = []
        return found


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    fake = Commands()
    monkeypatch.setattr(run, "_run_command", fake)
    monkeypatch.setattr(figures, "draw", lambda _: [])  # most of a report's time
    return fake


@pytest.fixture
def audit(tmp_path: Path, models: dict[str, str]) -> Callable[..., list[str]]:
    """Audits some of the arms with given options."""

    def call(*arms: str, **given: Any) -> list[str]:
        options = AuditOptions(**{"output": tmp_path / "audits", "tofu": "mini", "backend": "hf", **given})
        return run.audit([f"{arm}={models[arm]}" for arm in arms], options)

    return call


ALL = ("unlearned", "base", "full", "retain")


def test_the_order_of_the_steps_and_their_references(
    audit: Callable[..., list[str]], commands: Commands, tmp_path: Path
) -> None:
    lines = audit(*ALL, level="full")
    evaluations = [json.loads(commands.of(each, "metadata")) for each in commands.run[:4]]
    references = [sorted(given.keys() & {"retain_reference", "full_reference"}) for given in evaluations]
    assert references == [[], ["retain_reference"], *[["full_reference", "retain_reference"]] * 2]
    assert evaluations[3]["retain_reference"] == str(tmp_path / "audits/results/retain/lm_eval")
    stored = (tmp_path / "audits" / "commands.sh").read_text()
    assert all(run.shlex.join(command) in stored for command in commands.run)
    assert commands.steps() == [
        *("retain 9", "full 9", "base 9", "unlearned 9"),
        *("retain memorization", "full memorization", "base memorization", "unlearned memorization"),
        *("unlearned probe", "unlearned depth", "unlearned relearn"),
    ]
    assert len(lines) == 5
    assert lines[0].startswith("unlearned: Does it look forgotten?")
    assert lines[4] == f"report: {tmp_path / 'audits' / 'report' / 'report.html'}"
    assert audit(*ALL, level="full") == lines
    assert commands.steps() == []


def test_a_higher_level_asks_only_for_what_is_missing(audit: Callable[..., list[str]], commands: Commands) -> None:
    audit("unlearned", level="quick")
    assert commands.steps() == [f"unlearned {len(LEVELS['quick'].tasks)}"]
    audit("unlearned", level="standard")
    assert commands.steps() == ["unlearned 4", "unlearned memorization"]
    audit("unlearned", level="quick")
    assert commands.steps() == []


def test_a_reference_that_comes_later_changes_one_task(audit: Callable[..., list[str]], commands: Commands) -> None:
    audit("unlearned", level="quick")
    commands.steps()
    audit("unlearned", "retain", level="quick")
    assert commands.steps() == ["retain 5", "unlearned 1"]


def test_other_weights_are_evaluated_again(
    audit: Callable[..., list[str]], commands: Commands, models: dict[str, str], tmp_path: Path
) -> None:
    audit("unlearned", "retain", "full", level="quick")
    commands.steps()
    (Path(models["retain"]) / "model.safetensors").write_bytes(b"trained again")
    audit("unlearned", "retain", "full", level="quick")
    assert commands.steps() == ["retain 5", "full 1", "unlearned 1"]
    assert len(list((tmp_path / "audits" / "superseded").iterdir())) == 1
    audit("unlearned", "retain", "full", level="quick", metadata={"best_of_n": 2})
    assert commands.steps() == ["retain 5", "full 5", "unlearned 5"]


def test_a_cut_result_is_made_again(audit: Callable[..., list[str]], commands: Commands, tmp_path: Path) -> None:
    audit("unlearned", "retain", level="quick")
    commands.steps()
    samples = next((tmp_path / "audits/results/unlearned").rglob("samples_tofu_recognition_*"))
    samples.write_bytes(samples.read_bytes().rsplit(b"\n", 2)[0] + b"\n")
    audit("unlearned", "retain", level="quick")
    assert commands.steps() == ["unlearned 5"]


def test_an_engine_that_dies_leaves_what_is_finished(
    audit: Callable[..., list[str]], commands: Commands, tmp_path: Path
) -> None:
    commands.fails_at = "models/unlearned"
    log = tmp_path / "audits" / "logs" / "unlearned-evaluation.log"
    message = rf"^evaluation of unlearned failed with status 1: RuntimeError: Engine core died \(the whole log: {log}\)"
    with pytest.raises(OptionError, match=message):
        audit("unlearned", "retain", level="quick")
    assert commands.steps() == ["retain 5", "unlearned 5"]
    commands.fails_at = None
    audit("unlearned", "retain", level="quick")
    assert commands.steps() == ["unlearned 5"]


def test_the_time_is_estimated_by_another_arm(
    audit: Callable[..., list[str]], commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    audit("unlearned", "retain", level="quick")
    assert "to do: 2 steps: not measured yet: evaluation" in caplog.text
    assert "to do: 1 step: 1 step about 0.0 min, as on the other arms" in caplog.text


def test_one_arm_alone(audit: Callable[..., list[str]], commands: Commands, caplog: pytest.LogCaptureFixture) -> None:
    lines = audit("unlearned", level="full")
    assert "without retain=MODEL it cannot be said: forget quality" in caplog.text
    assert "probe is left out: it needs base=MODEL and retain=MODEL" in caplog.text
    assert "relearn is left out: it needs retain=MODEL" in caplog.text
    assert "Cannot be said" in lines[0]
    assert "Cannot be said" in lines[1]


def test_a_preset_holds_for_all_steps(audit: Callable[..., list[str]], commands: Commands) -> None:
    audit("unlearned", preset="llama-3.2-1b-instruct", template_args={"x": "y"})
    evaluation, memorization = commands.run
    arguments = json.loads(commands.of(evaluation, "model_args"))
    assert arguments["chat_template_args"] == {"date_string": "10 Apr 2025", "x": "y"}
    assert arguments["softmax_dtype"] == "float32"
    assert commands.of(evaluation, "system_instruction") == "You are a helpful assistant."
    assert commands.of(memorization, "system-prompt") == "You are a helpful assistant."
    assert json.loads(commands.of(memorization, "template-args")) == {"date_string": "10 Apr 2025", "x": "y"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["models/x"], "'models/x' is no arm: write ARM=MODEL"),
        (["a/b=models/x"], "is no arm"),
        (["unlearned="], "is no arm"),
        (["unlearned=a", "unlearned=b"], "the arm unlearned is given twice"),
        (["unlearned=a/b", "full=a/b"], "unlearned and full are the same model"),
        (["unlearned=.", f"full={Path.cwd()}"], "unlearned and full are the same model"),
    ],
)
def test_arms_that_cannot_be_told_apart(given: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_models(given)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of an error."""
    assert cli.main(["audit", *arguments, "--tofu", "mini", "--backend", "hf"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lm-eval-tofu: error")]
    return line


def test_what_is_refused_before_anything_is_run(
    commands: Commands,
    models: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, out = [f"{arm}={model}" for arm, model in models.items()], ("-o", str(tmp_path / "audits"))
    assert "unlearned: nowhere/at/all is no directory" in refused(capsys, "unlearned=nowhere/at/all", *out)
    assert "--level 'deep' is unknown: use one of quick" in refused(capsys, *given, *out, "--level", "deep")
    assert "preset 'x' is unknown" in refused(capsys, *given, *out, "--preset", "x")
    assert "give --tofu instead" in refused(capsys, *given, *out, "--metadata", '{"tofu": "x"}')
    assert "name the arm instead, as full=MODEL" in refused(capsys, *given, *out, "--metadata", '{"full_reference": 1}')
    assert "metadata key 'best_of' is unknown" in refused(capsys, *given, *out, "--metadata", '{"best_of": 1}')
    message = "forget_rows fits the leak audits only"
    assert message in refused(capsys, *given, *out, "--metadata", '{"forget_rows": [1]}')
    (tmp_path / "file").write_text("")
    assert "is a file: name a directory" in refused(capsys, *given, "-o", str(tmp_path / "file"))

    record = Path(models["retain"]) / "training.json"
    record.write_text(json.dumps({"options": {"split": "retain95+world_facts"}}))
    assert "was trained for retain95, as its training.json says" in refused(capsys, *given, *out)
    record.unlink()

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 1_000_000))
    assert "has 1 MB free, and at least 268 MB are needed: make room" in refused(capsys, *given, *out)
    assert commands.run == []


def test_a_full_disk_in_the_middle(
    audit: Callable[..., list[str]], commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", fails)
    with pytest.raises(OptionError, match=r"cannot be written .*No space left on device.*what is finished is kept"):
        audit("unlearned", level="quick")


def test_two_calls_do_not_share_an_output(audit: Callable[..., list[str]], commands: Commands, tmp_path: Path) -> None:
    import filelock

    (tmp_path / "audits").mkdir()
    with (
        filelock.FileLock(tmp_path / "audits" / ".lock"),
        pytest.raises(OptionError, match="in use by another process"),
    ):
        audit("unlearned", level="quick")


def _figures(folder: Path) -> dict[str, Any]:
    """All metrics of all arms' lm_eval runs and tools."""
    return {
        f"{file.parent.relative_to(folder)}/{task}": values
        for file in files.results_files(folder)
        for task, values in files.read_json(file)["results"].items()
    }


@pytest.mark.slow
def test_a_killed_audit_ends_with_the_same_figures(tiny_model: Path, tmp_path: Path) -> None:
    """Kill -9 of the driver at random moments: its steps end with it, and nothing that is finished is run again."""
    for arm in ("retain", "unlearned"):
        shutil.copytree(tiny_model, tmp_path / arm)
    weights = tmp_path / "retain" / "model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: tensor * 1.1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    arguments = ["audit", "unlearned=unlearned", "retain=retain", "--tofu", "mini", "--forget-split", "forget01"]
    arguments += ["--backend", "hf", "--level", "quick"]
    arguments += ["--metadata", '{"families": "direct"}']

    def started(output: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lm_eval_tofu.cli", *arguments, "-o", output]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    whole = started("whole")
    out, err = whole.communicate()
    assert whole.returncode == 0, err.decode()
    draw = random.Random(0)
    for _ in range(3):
        process = started("killed")
        time.sleep(draw.uniform(5, 40))
        process.kill()
        process.communicate()
    last = started("killed")
    again, err = last.communicate()
    assert last.returncode == 0, err.decode()
    assert again.decode().replace("killed/", "whole/") == out.decode()
    assert _figures(tmp_path / "killed" / "results") == _figures(tmp_path / "whole" / "results")
