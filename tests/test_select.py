"""The blind selection: ranks, what is written, and when it refuses."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu import cli, files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import permutation
from lm_eval_tofu.unlearn import sweep_config
from lm_eval_tofu.unlearn.select import Selection, select, table

# beta: (forget quality, D, utility); 0.1 and 0.2 have the same forget quality.
RUNS = {0.05: (1e-9, 0.6, 0.9), 0.1: (0.7, 0.1, 0.5), 0.2: (0.7, 0.1, 0.6), 0.5: (math.nan, math.nan, 0.9)}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a finished sweep of four runs, with 40 rows of two authors each."""
    folder = tmp_path / "sweep"
    config = sweep_config.SweepConfig("m", str(folder), {"beta": list(RUNS)}, "r")
    folder.mkdir()
    files.write_json(folder / sweep_config.CONFIG_FILE, asdict(config))
    for point in config.points:
        quality, distance, utility = RUNS[point["beta"]]
        write_results(
            config.run_folder(point) / "results",
            {
                "tofu_forget_quality": {"forget_quality,none": quality, "ks_statistic,none": distance},
                "tofu_model_utility": {"model_utility,none": utility},
            },
        )
        model = config.run_folder(point) / "model"
        model.mkdir()
        (model / "unlearning.json").write_text(json.dumps({"weights": f"w{point['beta']}"}))
    return folder


def write_results(
    folder: Path, results: dict[str, Any], authors: int = 2, shift: Callable[[int], float] = lambda _: 0.0
) -> None:
    """Results whose truth ratios are the retain arm's plus a shift, which depends on the row."""
    folder.mkdir(parents=True)
    (folder / "results_2026-11-25T00-00-00.json").write_text(json.dumps({"results": results}))
    records = [
        {"index": i, "truth_ratio": i % 20 / 20 + shift(i), "retain_truth_ratio": i % 20 / 20}
        for i in range(20 * authors)
    ]
    lines = [json.dumps({"forget_quality": record}) for record in reversed(records)]
    (folder / "samples_tofu_forget_quality_2026-11-25T00-00-00.jsonl").write_text("\n".join(lines) + "\n")


def test_forget_quality_decides_then_utility_and_nan_is_last(finished: Path) -> None:
    selection = select(finished)
    assert [run.run for run in selection.runs] == ["beta0.2", "beta0.1", "beta0.05", "beta0.5"]
    assert [run.rank for run in selection.runs] == [1, 2, 3, 4]
    assert (selection.selected, selection.checkpoint) == ("beta0.2", "runs/beta0.2/model")
    assert selection.blind
    best = selection.runs[0]
    assert (best.forget_quality, best.ks_statistic, best.model_utility) == (0.7, 0.1, 0.6)
    assert best.weights == "w0.2"
    assert best.p_value is None  # it is what the others are compared with


def test_what_is_written(finished: Path) -> None:
    selection = select(finished)
    written = json.loads((finished / "selection.json").read_text())
    assert written["selected"] == selection.selected
    assert [run["run"] for run in written["runs"]] == [run.run for run in selection.runs]
    assert all(len(run["results_sha256"]) == 64 for run in written["runs"])
    assert written["rule"].startswith("rank 1 by forget quality, ties by model utility")
    assert written["time"].endswith("+00:00")


def test_what_is_shown(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["select", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split() == ["1", "beta0.2", "0.7", "0.100", "-", "0.6000"]
    assert shown.splitlines()[2].split() == ["2", "beta0.1", "0.7", "0.100", "1.000", "0.5000"]
    assert "selected: beta0.2" in shown
    assert "3 of the 3 others cannot be distinguished from it by their distance D" in shown
    assert "beta0.1, beta0.05, beta0.5" in shown
    assert "there are fewer than 5 authors: rows were exchanged as if they were independent" in shown


def _equals(folder: Path, authors: int, shifts: dict[float, Callable[[int], float]]) -> Selection:
    """The selection of a sweep whose runs, the first with the highest forget quality, have shifted truth ratios."""
    config = sweep_config.SweepConfig("m", str(folder), {"beta": list(shifts)}, "r")
    folder.mkdir()
    files.write_json(folder / sweep_config.CONFIG_FILE, asdict(config))
    for rank, point in enumerate(config.points):
        metrics = {"forget_quality,none": 0.9 - rank / 10, "ks_statistic,none": 0.1}
        write_results(
            config.run_folder(point) / "results",
            {"tofu_forget_quality": metrics, "tofu_model_utility": {"model_utility,none": 0.5}},
            authors,
            shifts[point["beta"]],
        )
    return select(folder)


def test_equals_are_those_that_a_paired_test_cannot_distinguish_from_the_first(tmp_path: Path) -> None:
    """0.2 is off in one author of ten, as the first is in another; 0.3 is off in all."""
    selection = _equals(
        tmp_path / "ten",
        10,
        {0.1: lambda i: 5.0 * (i < 20), 0.2: lambda i: 5.0 * (i >= 180), 0.3: lambda _: 5.0},
    )
    assert selection.exchanged == "authors"
    assert selection.equals == ["beta0.2"]
    first, other, off = selection.runs
    assert (first.p_value, other.p_value) == (None, 1.0)
    clusters = [i // 20 for i in range(200)]
    retain = [i % 20 / 20 for i in range(200)]
    ours, theirs = [5.0 * (i < 20) + retain[i] for i in range(200)], [5.0 + ratio for ratio in retain]
    raw = permutation.ks_difference_test(ours, theirs, retain, clusters).p_value
    assert off.p_value == pytest.approx(2 * raw)  # Holm's first step of two
    assert off.p_value < 0.05
    shown = "\n".join(table(selection))
    assert "1 of the 2 others cannot be distinguished from it by their distance D from the retain arm" in shown
    assert "fewer than" not in shown


def test_no_equals(tmp_path: Path) -> None:
    selection = _equals(tmp_path / "all", 10, {0.1: lambda _: 0.0, 0.2: lambda _: 5.0})
    assert selection.equals == []
    assert "of the 1 others all that were tested can be distinguished from it" in "\n".join(table(selection))


def test_runs_without_truth_ratios_are_named(tmp_path: Path) -> None:
    selection = _equals(tmp_path / "nan", 10, {0.1: lambda _: 0.0, 0.2: lambda i: math.nan if i == 3 else 0.0})
    assert [run.p_value for run in selection.runs] == [None, None]
    assert "1 runs have no test, since truth ratios are missing: beta0.2" in "\n".join(table(selection))


@pytest.mark.parametrize("task", ["tofu_novel_recall", "tofu_answer_logprob", "probe"])
def test_an_audit_that_was_already_made_is_refused(finished: Path, task: str) -> None:
    write_results(finished / "runs" / "beta0.1" / "audit", {task: {"leak_rate,none": 0.1}})
    with pytest.raises(OptionError, match=rf"holds results of {task}: .* is not blind; .* or give --not-blind"):
        select(finished)
    assert not (finished / "selection.json").exists()
    selection = select(finished, not_blind=True)
    assert (selection.blind, selection.audits_seen) == (False, [task])
    assert json.loads((finished / "selection.json").read_text())["audits_seen"] == [task]


def test_missing_runs(finished: Path) -> None:
    (finished / "runs" / "beta0.2" / "results").rename(finished / "runs" / "beta0.2" / "results.partial")
    with pytest.raises(OptionError, match=r"1 of 4 runs have no results, beta0.2 for one: finish the sweep"):
        select(finished)
    selection = select(finished, allow_missing=True)
    assert (selection.selected, selection.missing) == ("beta0.1", ["beta0.2"])


def test_a_directory_that_is_no_sweeps(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"sweep.json cannot be read .*name the directory of a sweep"):
        select(tmp_path)


def test_cut_results(finished: Path) -> None:
    [path] = (finished / "runs" / "beta0.1" / "results").glob("results_*.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(OptionError, match=r"cannot be read .*delete it and evaluate that run again"):
        select(finished)
