"""Runs that are set side by side were evaluated alike, or it is said what differs."""

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu import arm, evaluation
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.unlearn import alike

TASK = "tofu_forget_quality"
USUAL = {"backend": "hf", "weights_dtype": "float32", "task": TASK, "version": 3.0, "options": {"forget_split": "f"}}


def written(folder: Path, time: str = "2026-01-01T00-00-00", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    record = ArmSettings(model="m", **{**USUAL, **changes}).to_record()
    content = {"configs": {TASK: {arm.RECORD_KEY: record}}}
    (folder / f"results_{time}.json").write_text(json.dumps(content))
    return folder


def check(results: dict[str, Path]) -> list[str]:
    return alike.check_runs(results, {run: folder / "no model" for run, folder in results.items()}, [TASK])


def test_runs_that_were_evaluated_alike(tmp_path: Path) -> None:
    assert check({run: written(tmp_path / run) for run in ("a", "b", "c")}) == []


def test_differences_are_named_once_with_the_runs_that_have_them(tmp_path: Path) -> None:
    results = {run: written(tmp_path / run) for run in ("a", "b")}
    results |= {run: written(tmp_path / run, weights_dtype="bfloat16") for run in ("c", "d", "e", "f", "g")}
    assert check(results) == [
        "dtype differs (float32 in a; bfloat16 in c, d, e and 2 more; set by dtype in --model_args)"
    ]


def test_runs_that_were_asked_other_things_are_refused(tmp_path: Path) -> None:
    results = {"a": written(tmp_path / "a"), "b": written(tmp_path / "b", version=2.0)}
    with pytest.raises(
        OptionError, match=r"'a' and 'b' were asked .* with other task version \(3.0; 2.0\): evaluate both"
    ):
        check(results)


def test_the_newest_results_count_and_a_missing_record_is_said(tmp_path: Path) -> None:
    written(tmp_path / "a", weights_dtype="bfloat16")
    results = {"a": written(tmp_path / "a", "2026-01-02T00-00-00"), "b": written(tmp_path / "b")}
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "results_2026-01-01T00-00-00.json").write_text('{"results": {}}')
    assert check(results) == []
    assert check({**results, "c": tmp_path / "c"}) == [f"how {TASK} was evaluated is not recorded for c"]


def test_results_of_other_weights_than_the_checkpoints(tiny_model: Path, tmp_path: Path) -> None:
    """A run that was trained again beside results of its earlier weights."""
    weights = weights_fingerprint(tiny_model)
    results = {"a": written(tmp_path / "a", weights=weights)}
    assert alike.check_runs(results, {"a": tiny_model}, [TASK]) == []
    written(tmp_path / "a", weights="files:0000000000000000")
    with pytest.raises(OptionError, match=r"results of run a .* are of other weights than its checkpoint .*: delete"):
        alike.check_runs(results, {"a": tiny_model}, [TASK])


def test_the_record_that_an_evaluation_leaves(tiny_model: Path, tmp_path: Path) -> None:
    """Of real runs, whose weights are those on the disk."""
    results = {}
    for dtype in ("float32", "bfloat16"):
        results[dtype] = tmp_path / dtype
        evaluation.evaluate(
            tiny_model,
            results[dtype],
            tasks=["tofu_answer_logprob"],
            model_args={"dtype": dtype},
            metadata={"tofu": "mini", "forget_split": "forget01"},
            batch_size=4,
            device="cpu",
        )
    [first, *_] = alike.check_runs(results, dict.fromkeys(results, tiny_model), ["tofu_answer_logprob"])
    assert first == "dtype differs (float32 in float32; bfloat16 in bfloat16; set by dtype in --model_args)"
