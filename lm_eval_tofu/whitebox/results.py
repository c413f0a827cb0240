"""Writes the figures of a white-box audit to `results_<time>.json`, in the form that lm-eval gives a task's results.

The report reads such a file as it reads lm-eval's own. Another audit needs an entry in `whitebox.VERSIONS` and one call
of `write`.
"""

import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lm_eval_tofu import files
from lm_eval_tofu.metrics.inference import Estimate
from lm_eval_tofu.whitebox import VERSIONS

log = logging.getLogger(__name__)


def write(
    output: Path,
    task: str,
    metrics: Mapping[str, float],
    *,
    model: str,
    n: int,
    metadata: Mapping[str, Any],
    details: Mapping[str, Any],
) -> Path:
    """Write the results of one audit.

    Args:
        output: Directory of the file.
        task: A key of `whitebox.VERSIONS`.
        metrics: What is reported; NaN becomes null.
        model: The audited model, as it was named.
        n: Rows or prompts that were asked.
        metadata: Settings, data and weights.
        details: What the metrics were computed from; stored under the task's name.

    Returns:
        The file.
    """
    date, version = time.time(), VERSIONS[task]
    path = output / f"results_{datetime.fromtimestamp(date).isoformat().replace(':', '-')}.json"
    content = {
        "results": {task: {"alias": task, **{f"{name},none": value for name, value in metrics.items()}}},
        "configs": {task: {"task": task, "metadata": {"version": version, **metadata}}},
        "versions": {task: version},
        "n-shot": {task: 0},
        "n-samples": {task: {"original": n, "effective": n}},
        "model_name": model,
        "date": date,
        task: details,
    }
    files.write_json(path, content)
    log.info("results written to %s", path)
    return path


def metrics_of(content: Mapping[str, Any], task: str) -> dict[str, float]:
    """The metrics of a task by name; NaN where the file has null."""
    found = content["results"][task]
    return {name.removesuffix(",none"): files.as_float(value) for name, value in found.items() if name != "alias"}


def with_interval(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate and the limits of its interval as metrics."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def with_test(name: str, estimate: Estimate) -> dict[str, float]:
    """An excess with its interval, standard error and p value as metrics, and the authors that all rest on."""
    tested = {f"{name}_error": estimate.error, f"{name}_p_value": estimate.p_value, "authors": estimate.clusters}
    return {**with_interval(name, estimate), **tested}


def shown(value: Any, low: Any, high: Any, form: str) -> str:
    """A figure and its interval, such as `0.230 [0.120, 0.340]` with the form `.3f`; the figure alone without one."""
    value, low, high = (files.as_float(each) for each in (value, low, high))
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{interval}"
