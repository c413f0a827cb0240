"""Tables of a report made by hand, without results: what tests of figures and verdicts look at."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.report.arms import Arm, Results, TaskRun
from lm_eval_tofu.report.audits import AUDITS
from lm_eval_tofu.report.tables import Measured, Row, Tables

NAN = math.nan
UNITS = {
    "forget_quality": "p",
    "forget_quality_paired": "p",
    "ks_statistic": "number",
    "model_utility": "number",
    "relearn": "points",
}


def tables(*arms: str | Arm, **given: Any) -> Tables:
    """Tables about these arms in which only the given fields have content; a row of `main` is the keyword `row_KEY`."""
    rows = {key.removeprefix("row_"): given.pop(key) for key in list(given) if key.startswith("row_")}
    keys = ("forget_quality", "ks_statistic", "forget_quality_paired", "model_utility", "novel_recall", *rows)
    main = [row(key, rows.get(key, {})) for key in dict.fromkeys(keys)]
    empty: dict[str, Any] = {"authors": 20, "parts": [], "by_family": {}, "ratios": {}, "leak_at_k": {}, "turns": {}}
    empty |= {"shuffled": {}, "probe": {}, "chance": NAN, "relearn": {}, "rows": [], "missing": [], "others": []}
    results = Results([arm if isinstance(arm, Arm) else Arm(arm, Path(arm)) for arm in arms], "forget10", [])
    return Tables(**{**empty, **given, "results": results, "main": main})


def row(key: str, cells: Mapping[str, Measured | None]) -> Row:
    unit = UNITS.get(key, "share")
    label = f"{key.replace('_', ' ').capitalize()}, as measured"
    task = {audit.key: audit.task for audit in AUDITS}.get(key, "")
    return Row(key=key, label=label, help="", unit=unit, task=task, leak=unit in ("share", "points"), cells=cells)


def measured(value: float, low: float = NAN, high: float = NAN) -> Measured:
    """A figure whose excess differs from everything else of it."""
    return Measured(value=value, low=low, high=high, excess=0.77, excess_low=0.66, excess_high=0.88)


def run(task: str, model: str = "m", **given: Any) -> TaskRun:
    """A task's run; what is not given has no content."""
    stated: dict[str, Any] = {"split": "forget10", "path": Path("results.json"), "options": {}, "documents": None}
    stated |= {"of": None, "metrics": {}, "settings": ArmSettings(model=model, backend="hf", task=task)}
    return TaskRun(**{**stated, "samples": None, **given, "task": task})
