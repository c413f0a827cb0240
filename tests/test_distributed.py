"""Several processes take the step that one takes: DDP and FSDP over gloo, with the accelerate presets."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu import cli

CHILD = Path(__file__).with_name("distributed_child.py")
# One step of plain gradient descent on all four rows: the weights' change is the gradient.
UNLEARN, FINETUNE = ("unlearn", "--forget-split", "forget01"), ("finetune", "--split", "forget01")
OPTIONS = (
    *("--tofu", "mini", "--epochs", "1", "--warmup", "0", "--seed", "3"),
    *("--optim", "sgd", "--lr", "0.1", "--lr_scheduler_type", "constant", "--weight-decay", "0", "--use_cpu", "true"),
)


def preset(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["presets", name]) == 0
    return capsys.readouterr().out.strip()


def step(
    what: Sequence[str], model: Path, output: Path, batch_size: int, accumulation: int, launcher: list[str]
) -> dict[str, Any]:
    from safetensors.torch import load_file

    sizes = ("--batch-size", str(batch_size), "--gradient-accumulation", str(accumulation))
    command = [*launcher, str(CHILD), *what, "--model", str(model), "--output", str(output), *OPTIONS, *sizes]
    run = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "effective batch 4, 1 steps" in run.stderr
    weights: dict[str, Any] = load_file(output / "model.safetensors")
    return weights


@pytest.fixture(scope="module")
def single(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], dict[str, Any]]:
    """The weights after one process's step with a batch of four."""

    @functools.cache
    def weights(what: Sequence[str]) -> dict[str, Any]:
        return step(what, tiny_model, tmp_path_factory.mktemp("single") / "model", 4, 1, [sys.executable])

    return weights


@pytest.mark.slow
@pytest.mark.parametrize(("name", "what"), [("ddp", UNLEARN), ("fsdp", UNLEARN), ("ddp", FINETUNE)])
def test_two_processes_take_the_step_of_one(
    name: str,
    what: Sequence[str],
    single: Callable[[Sequence[str]], dict[str, Any]],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from safetensors.torch import load_file

    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", preset(name, capsys)]
    launch += ["--num_processes", "2", "--main_process_port", "0"]
    alone, weights = single(what), step(what, tiny_model, tmp_path / name, 2, 1, launch)
    before = load_file(tiny_model / "model.safetensors")
    # Gathered from FSDP's shards, tied weights come twice.
    for extra in weights.keys() - alone.keys():
        assert extra == "lm_head.weight"
        assert weights[extra].equal(weights["model.embed_tokens.weight"])
    moved = max(float((alone[key] - before[key]).abs().max()) for key in alone)
    apart = max(float((alone[key] - weights[key]).abs().max()) for key in alone)
    assert moved > 1e-3
    assert apart < moved / 10_000


@pytest.mark.slow
@pytest.mark.parametrize("what", [UNLEARN, FINETUNE])
def test_four_batches_of_one_take_the_step_of_one_batch_of_four(
    what: Sequence[str],
    single: Callable[[Sequence[str]], dict[str, Any]],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    alone, weights = single(what), step(what, tiny_model, tmp_path / "model", 1, 4, [sys.executable])
    assert max(float((alone[key] - weights[key]).abs().max()) for key in alone) < 1e-6
