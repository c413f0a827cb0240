"""The command line: what it prints, what it writes, and how it refuses."""

import argparse
import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from lm_eval_tofu import __version__, cli, tofu
from lm_eval_tofu.errors import DataError
from lm_eval_tofu.tasks import TASKS_DIR

PACKAGE_ROOT = Path(cli.__file__).parents[1]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lm-eval-tofu: error: ")
    assert err.count("\n") == 1
    return err


def test_tasks_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tasks-path"]) == 0
    assert capsys.readouterr().out == f"{TASKS_DIR}\n"
    assert any(TASKS_DIR.glob("*.yaml"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"lm-eval-tofu {__version__}\n"


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([])
    assert exit_.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; from lm_eval_tofu.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets', 'yaml', 'scipy'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    assert all(command in run.stdout for command in ("tasks-path", "presets", "data", "finetune"))


def test_presets_lists_every_file_with_its_first_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets"]) == 0
    shown = capsys.readouterr().out
    for kind, use in cli.PRESET_KINDS.items():
        assert f"{use}\n" in shown
        for path in (cli.PRESETS_DIR / kind).glob("*.yaml"):
            [line] = [line for line in shown.splitlines() if line.split()[0] == path.stem]
            assert len(line.split()) > 3
            assert "#" not in line


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed_zero3", "npo-54"])
def test_presets_fills_in_run_configs_only(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", name]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert cli.main(["presets", name, "--pretrained", "m"]) == 2
    assert f"presets --pretrained fills in run configs of lm_eval, and {name} is none" in _error(capsys)


def test_accelerate_reads_its_presets() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {
        path.stem: load_config_from_file(str(path)).distributed_type
        for path in (cli.PRESETS_DIR / "accelerate").glob("*.yaml")
    }
    assert kinds == {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed_zero3": "DEEPSPEED"}


def test_presets_prints_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", "cpu-hf"]) == 0
    assert capsys.readouterr().out == f"{cli.PRESETS_DIR / 'lm_eval' / 'cpu-hf.yaml'}\n"


def test_presets_refuses_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", "gpu"]) == 2
    err = _error(capsys)
    assert "'gpu'" in err
    assert "llama-3.2-1b-instruct" in err


def test_presets_options_need_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", "--pretrained", "m"]) == 2
    assert "--pretrained" in _error(capsys)


def test_presets_fills_in_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths = []
    for model in ("my/model", "my/model", "my/other"):
        assert cli.main(["presets", "cpu-hf", "--pretrained", model]) == 0
        paths.append(Path(capsys.readouterr().out.strip()))
    assert paths[0] == paths[1] != paths[2]
    assert {path.parent for path in paths} == {tmp_path / "lm-eval-tofu"}
    expected = yaml.safe_load((cli.PRESETS_DIR / "lm_eval" / "cpu-hf.yaml").read_text())
    expected["model_args"]["pretrained"] = "my/model"
    assert yaml.safe_load(paths[0].read_text()) == expected
    assert sorted(paths[0].parent.iterdir()) == sorted(set(paths))  # nothing written aside is left


def test_presets_copies_a_file_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "new" / "mine.yaml"
    assert cli.main(["presets", "cpu", "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert output.read_text() == (cli.PRESETS_DIR / "lm_eval" / "cpu.yaml").read_text()


def test_presets_says_what_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["presets", "cpu", "--output", str(tmp_path)]) == 2
    assert str(tmp_path) in _error(capsys)
    assert list(tmp_path.parent.glob(".*.tmp")) == []


@pytest.fixture
def small_tofu(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"full": 3, "forget10": 2}
    monkeypatch.setattr(tofu, "CONFIGS", rows)
    monkeypatch.setattr(tofu, "load", lambda config, source: [{}] * rows[config])
    monkeypatch.setattr(tofu, "fingerprint", lambda source, config: f"{rows[config]:016x}")


@pytest.mark.usefixtures("small_tofu")
def test_data_prints_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", "--tofu", str(tmp_path)]) == 0
    source, header, *rows = capsys.readouterr().out.splitlines()
    assert str(tmp_path) in source
    assert header.split() == ["config", "rows", "fingerprint"]
    assert [row.split() for row in rows] == [["full", "3", f"{3:016x}"], ["forget10", "2", f"{2:016x}"]]


def test_data_reports_errors_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", "--tofu", str(tmp_path / "missing")]) == 2
    assert "missing" in _error(capsys)
    assert cli.main(["data", "--tofu", str(tmp_path)]) == 2
    assert str(tmp_path) in _error(capsys)


def _fake_finetune(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    import lm_eval_tofu.unlearn

    module = types.ModuleType("lm_eval_tofu.unlearn.finetune")
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--output")
    module.parser = lambda: argparse.ArgumentParser(add_help=False, parents=[options])
    module.run = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(lm_eval_tofu.unlearn, "finetune", module, raising=False)
    monkeypatch.setattr(cli, "_check_installed", lambda *_: None)


def test_finetune_delegates(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def run(args: argparse.Namespace) -> None:
        seen.append(args.output)

    _fake_finetune(monkeypatch, run)
    assert cli.main(["finetune", "--output", "x"]) == 0
    assert seen == ["x"]


def test_finetune_reports_errors_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise DataError("tofu='x' is wrong: do this")

    _fake_finetune(monkeypatch, run)
    assert cli.main(["finetune"]) == 2
    assert capsys.readouterr().err == "lm-eval-tofu: error: tofu='x' is wrong: do this\n"


@pytest.mark.parametrize("missing", ["torch", "accelerate"])
def test_finetune_names_the_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    assert cli.main(["finetune", "--help"]) == 2
    err = _error(capsys)
    assert missing in err
    assert "pip install 'lm-eval-tofu[unlearn]'" in err
