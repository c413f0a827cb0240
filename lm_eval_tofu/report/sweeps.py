"""A sweep's selection, with a leak rate for each run that has been audited since."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_tofu import files, tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.files import as_float
from lm_eval_tofu.report.arms import Results
from lm_eval_tofu.report.load import ResultsFile, mapping, task_versions

log = logging.getLogger(__name__)

_TASK, _METRIC = "tofu_novel_recall", "leak_rate"
"""The figure that is drawn for a sweep's runs."""
_SETTINGS = ("method", "epochs", "learning_rate", "alpha", "beta", "gamma", "margin", "weight_decay", "lora_r")


def sweep_points(folder: Path, results: Results) -> Mapping[str, Any]:
    """Read a sweep's `selection.json` and its runs' audits.

    Args:
        folder: The sweep's directory, or the file.
        results: The arms that the audits are to be drawn beside, which get a warning of each that does not fit.

    Returns:
        The selection; `settings` holds what the selected run was trained with, as far as the sweep records it.

    Raises:
        OptionError: There is none, it cannot be read, or an audit is of another split or task version.
    """
    file = folder / "selection.json" if folder.is_dir() else folder
    again = f"run lm-eval-tofu select {file.parent} again"
    if not file.is_file():
        raise OptionError(f"--sweep {folder} has no selection.json: run lm-eval-tofu select {folder} first")
    selection = files.read_json(file, again)
    runs = selection.get("runs")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) and "run" in run for run in runs):
        raise OptionError(f"--sweep {file} lists no runs: {again}")
    for run in runs:
        run |= {
            name: as_float(run[name]) for name in ("forget_quality", "ks_statistic", "model_utility") if name in run
        }
        for path in files.results_files(file.parent / "runs" / str(run["run"])):
            audit = ResultsFile.read(path)
            metrics = audit.metrics(_TASK)
            if _METRIC in metrics and _fits(str(run["run"]), audit, results):
                run[_METRIC] = metrics[_METRIC]
    selected: Mapping[str, Any] = next((run for run in runs if run["run"] == selection.get("selected")), {})
    sweep = files.read_json(file.parent / "sweep.json", again) if (file.parent / "sweep.json").is_file() else {}
    given = {**sweep, **mapping(sweep.get("training")), **mapping(selected.get("point"))}
    settings = {name: given[name] for name in _SETTINGS if isinstance(given.get(name), str | int | float)}
    return {**selection, "settings": settings}


def _fits(run: str, audit: ResultsFile, results: Results) -> bool:
    """Whether a run's audit can be drawn beside the arms; refuses one of another split or task version."""
    version, ours = audit.version(_TASK), task_versions()[_TASK]
    if version != ours:
        raise OptionError(
            f"--sweep: run {run} ({audit.path}) was audited with {_TASK} version {version}, this is version {ours}: "
            "audit it again, or delete that file"
        )
    split = audit.split(_TASK) or tofu.DEFAULT_FORGET_SPLIT
    if split != results.split:
        raise OptionError(
            f"--sweep: run {run} ({audit.path}) was audited on {split}, the arms are on {results.split}: name the "
            "sweep that belongs to these arms"
        )
    theirs = next((arm.runs[_TASK].documents for arm in results.arms if _TASK in arm.runs), None)
    if not audit.is_of_chosen_rows(_TASK) and (theirs is None or audit.documents(_TASK)[0] == theirs):
        return True
    warning = f"the audit of the sweep's run {run} is left out: it asked other documents of {_TASK} than the arms were"
    log.warning("%s (%s)", warning, audit.path)
    results.warnings.append(warning)
    return False
