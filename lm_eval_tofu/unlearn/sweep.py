"""Runs a sweep: one training and one evaluation for every point of its grid, by any number of workers.

The sweep's directory is the queue. Each run has a directory in it with its record, log, checkpoint and results, and a
lock that a worker holds while it is at the run; the system releases the lock of a worker that dies.
"""

import logging
import math
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import child
from lm_eval_tofu.unlearn.sweep_config import CONFIG_FILE, Point, SweepConfig, check, name_of

log = logging.getLogger(__name__)

RUN_FILE, LOG_FILE, LOCK_FILE = "run.json", "log.txt", ".lock"
KEEP = ("all", "best", "none")

_TRIAL = ("-m", "lm_eval_tofu.unlearn.trial")
_PAUSE = 2.0
"""Seconds between two checks of runs that other workers are at."""


class RunState(NamedTuple):
    """The state of one run.

    Attributes:
        point: Its point of the grid.
        state: waiting, running, complete or failed.
        metrics: `forget_quality`, `ks_statistic` and `model_utility`, once complete.
        seconds: How long it took, or has taken so far.
        error: Why it failed.
    """

    point: Point
    state: str
    metrics: Mapping[str, float] = {}
    seconds: float | None = None
    error: str | None = None


# The queue.


def runs(config: SweepConfig) -> list[RunState]:
    """The state of each point of the grid, in the grid's order; nothing is written."""
    return [_running(config, found) or found for found in (_recorded(config, point) for point in config.points)]


def _recorded(config: SweepConfig, point: Point) -> RunState:
    """The state of a run by its files alone: a run that was interrupted or is locked by a worker is waiting."""
    folder = config.run_folder(point)
    record = files.read_json(folder / RUN_FILE) if (folder / RUN_FILE).is_file() else {}
    if "metrics" in record and (folder / "results").is_dir():
        metrics = {name: files.as_float(value) for name, value in record["metrics"].items()}
        return RunState(point, "complete", metrics, record["seconds"])
    if "error" in record:
        return RunState(point, "failed", {}, record["seconds"], record["error"])
    return RunState(point, "waiting")


def _running(config: SweepConfig, found: RunState) -> RunState | None:
    """The run's state if a worker holds its lock, else None."""
    folder = config.run_folder(found.point)
    if found.state == "complete" or not (folder / LOCK_FILE).is_file():
        return None
    try:
        with filelock.FileLock(folder / LOCK_FILE, timeout=0):
            return None
    except (filelock.Timeout, PermissionError):  # without write permission the lock cannot be tested
        record = files.read_json(folder / RUN_FILE) if (folder / RUN_FILE).is_file() else {}
        begun = datetime.fromisoformat(record["started"]) if "started" in record else None
        seconds = None if begun is None else (datetime.now(UTC) - begun).total_seconds()
        return RunState(found.point, "running", {}, seconds)


# Workers.


def sweep(config: SweepConfig, keep: str = "all") -> list[RunState]:
    """Work on the sweep until nothing is left to take; several processes may do so at the same time.

    Args:
        config: The sweep.
        keep: Which checkpoints stay: `all`, `best` (by the rule of `select`, of those finished so far) or `none`.

    Returns:
        The state of every run; those that failed state the reason.

    Raises:
        OptionError: An option cannot be used, or finished runs in the directory were made with another.
        TofuError: Model, data or reference cannot be used.
    """
    from tqdm import tqdm

    if keep not in KEEP:
        raise OptionError(f"--keep {keep!r} is unknown: use {', '.join(KEEP)}")
    _check_same(config)
    check(config)
    files.write_json(config.folder / CONFIG_FILE, asdict(config))
    # What failed in an earlier call is tried again once: the reason may be gone.
    failed = [found for found in runs(config) if found.state == "failed"]
    for found in failed:
        log.info("%s is tried again; it failed: %s", name_of(found.point), found.error)
    with tqdm(total=len(config.points), unit="run", desc="sweep") as bar:
        while True:
            states = runs(config)
            bar.n = sum(found.state in ("complete", "failed") for found in states)
            bar.refresh()
            free = [found for found in states if found.state == "waiting" or found in failed]
            if any(_run_if_free(config, found, keep) for found in free):
                continue
            if not free and not any(found.state == "running" for found in states):
                return states
            # Other workers run them; if a worker dies, its run is free again.
            time.sleep(_PAUSE)


def _check_same(config: SweepConfig) -> None:
    """Make sure that finished runs in the directory are runs of this sweep; the grid alone may have grown."""
    file = config.folder / CONFIG_FILE
    if not file.is_file() or not any(
        "metrics" in files.read_json(path) for path in config.folder.glob(f"runs/*/{RUN_FILE}")
    ):
        return
    before = files.read_json(file)
    for name, value in files.as_json_values(asdict(config)).items():
        if name not in ("output", "grid") and before.get(name) != value:
            raise OptionError(
                f"{name} is {value!r}, but was {before.get(name)!r} for the finished runs in {config.folder}: go on "
                "with the same, or name another --output"
            )


def _run_if_free(config: SweepConfig, found: RunState, keep: str) -> bool:
    """Carry out a run unless another worker holds its lock; returns False in that case."""
    folder = config.run_folder(found.point)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK_FILE, timeout=0):
            # Else another worker has finished it in the meantime.
            if _recorded(config, found.point) == found:
                _run(config, found.point, folder)
    except filelock.Timeout:
        return False
    if keep != "all":
        _drop_checkpoints(config, keep)
    return True


def _run(config: SweepConfig, point: Point, folder: Path) -> None:
    """Train and evaluate one point in a process of its own; what is there already is not made again."""
    started = datetime.now(UTC)
    record: dict[str, Any] = {"point": point, "started": started.isoformat(), "host": platform.node()}
    files.write_json(folder / RUN_FILE, record)
    try:
        if not (folder / "results").is_dir():
            child.run([sys.executable, *_TRIAL, str(folder)], folder / LOG_FILE, f"run {folder.name}")
        record["metrics"] = read_metrics(folder / "results")
    except OptionError as error:
        log.error("%s failed: %s", folder.name, error)
        record["error"] = str(error)
    record["seconds"] = (datetime.now(UTC) - started).total_seconds()
    files.write_json(folder / RUN_FILE, record)


def read_metrics(results: Path) -> dict[str, float]:
    """Forget quality, D and utility of a finished run."""
    content = files.read_json(files.newest_results(results))["results"]
    quality, utility = content["tofu_forget_quality"], content["tofu_model_utility"]
    return {
        "forget_quality": files.as_float(quality["forget_quality,none"]),
        "ks_statistic": files.as_float(quality["ks_statistic,none"]),
        "model_utility": files.as_float(utility["model_utility,none"]),
    }


def rank_key(metrics: Mapping[str, float]) -> tuple[float, float]:
    """What the selection sorts by, best first: forget quality, then utility; NaN comes last."""
    quality, utility = metrics["forget_quality"], metrics["model_utility"]
    return (math.inf if math.isnan(quality) else -quality, math.inf if math.isnan(utility) else -utility)


def _drop_checkpoints(config: SweepConfig, keep: str) -> None:
    complete = [found for found in runs(config) if found.state == "complete"]
    complete.sort(key=lambda found: rank_key(found.metrics))
    for found in complete[1 if keep == "best" else 0 :]:
        shutil.rmtree(config.run_folder(found.point) / "model", ignore_errors=True)


def table(states: Sequence[RunState]) -> Iterator[str]:
    """The lines of `lm-eval-tofu sweep status`."""
    width = max(len(name_of(state.point)) for state in states)
    yield f"{'run':{width}}  {'state':8}  {'forget quality':>14}  {'D':>6}  {'utility':>7}  {'seconds':>7}"
    for state in states:
        metrics = [state.metrics.get(key) for key in ("forget_quality", "ks_statistic", "model_utility")]
        quality, distance, utility = ("-" if value is None else f"{value:.4g}" for value in metrics)
        seconds = "-" if state.seconds is None else f"{state.seconds:.0f}"
        name = f"{name_of(state.point):{width}}  {state.state:8}"
        line = f"{name}  {quality:>14}  {distance:>6}  {utility:>7}  {seconds:>7}"
        yield f"{line}  {state.error}" if state.error else line
    counts = Counter(state.state for state in states)
    yield ", ".join(f"{counts[name]} {name}" for name in ("complete", "running", "waiting", "failed"))
