"""The blind selection: ranks, what is written, and when it refuses."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from lm_eval_tofu import cli, files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.benchmark import ks_statistic_interval
from lm_eval_tofu.unlearn import sweep
from lm_eval_tofu.unlearn.select import select

# beta: (forget quality, D, utility); 0.1 and 0.2 have the same forget quality.
RUNS = {0.05: (1e-9, 0.6, 0.9), 0.1: (0.7, 0.1, 0.5), 0.2: (0.7, 0.1, 0.6), 0.5: (math.nan, math.nan, 0.9)}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a finished sweep of four runs, with 40 rows of two authors each."""
    folder = tmp_path / "sweep"
    config = sweep.SweepConfig("m", str(folder), {"beta": list(RUNS)}, "r")
    folder.mkdir()
    files.write_json(folder / sweep.CONFIG_FILE, sweep.asdict(config))
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


def write_results(folder: Path, results: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "results_2026-11-25T00-00-00.json").write_text(json.dumps({"results": results}))
    # The first author's ratios are the retain arm's, the second's are all larger: D is 0, 1/2 or 1 in a resample.
    records = [
        {"index": i, "truth_ratio": i / 20 if i < 20 else 5 + i, "retain_truth_ratio": i % 20 / 20} for i in range(40)
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
    assert best.ks_interval == (0, 1)


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
    assert shown.splitlines()[1].split() == ["1", "beta0.2", "0.7", "0.100", "0.000-1.000", "0.6000"]
    assert "selected: beta0.2" in shown
    assert "2 runs have a forget quality above 0.05: among those the order is mostly noise" in shown


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


class TestInterval:
    """The bootstrap interval of D."""

    def test_two_authors(self) -> None:
        """Drawing both authors gives D = 1/2, one of them twice 0 or 1, a quarter each: the interval is all of it."""
        ratios, retain = [0.1, 0.2, 5, 6], [0.1, 0.2, 0.1, 0.2]
        assert ks_statistic_interval(ratios, retain, [0, 0, 1, 1]) == (0, 1)
        assert ks_statistic_interval(ratios, retain, [0, 0, 1, 1], level=0.4) == (0.5, 0.5)

    def test_the_distance_is_scipys(self) -> None:
        """Two authors with the same rows: each resample is the sample, twice, so both limits are its distance."""
        generator = np.random.default_rng(1)
        ratios, retain = generator.gamma(2, size=30).round(1).tolist(), generator.gamma(3, size=30).round(1).tolist()
        expected = ks_2samp(ratios, retain).statistic
        limits = ks_statistic_interval(ratios * 2, retain * 2, [0] * 30 + [1] * 30)
        assert limits == pytest.approx((expected, expected), abs=1e-12)

    def test_same_samples(self) -> None:
        assert ks_statistic_interval([1, 2, 3], [1, 2, 3], [0, 1, 2]) == (0, 0)

    def test_order_of_rows_does_not_matter(self) -> None:
        ratios, retain, authors = [0.1, 0.9, 0.4, 0.7, 0.3, 0.8], [0.2, 0.3, 0.6, 0.1, 0.5, 0.4], [0, 0, 1, 1, 2, 2]
        order: Callable[[list[Any]], list[Any]] = lambda values: [values[i] for i in (5, 2, 0, 3, 1, 4)]  # noqa: E731
        again = ks_statistic_interval(order(ratios), order(retain), order(authors))
        assert ks_statistic_interval(ratios, retain, authors) == again

    def test_no_interval(self) -> None:
        assert all(map(math.isnan, ks_statistic_interval([1, 2], [1, 2], [0, 0])))
        assert all(map(math.isnan, ks_statistic_interval([1, math.nan], [1, 2], [0, 1])))

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="differ"):
            ks_statistic_interval([1, 2], [1], [0, 1])
        with pytest.raises(ValueError, match="no truth ratios"):
            ks_statistic_interval([], [], [])
