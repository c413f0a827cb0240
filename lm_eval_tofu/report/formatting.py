"""Figures as text: one place, so that the page, the Markdown and the cards agree."""

import math

from lm_eval_tofu.report.tables import Measured


def excess_unit(unit: str) -> str:
    """The unit of a difference: of shares, percentage points."""
    return {"share": "share_points"}.get(unit, unit)


def text(value: float, unit: str, *, sign: bool = False) -> str:
    """A figure in its unit; a dash for NaN. What rounds to zero has no sign of its own (`z`)."""
    if math.isnan(value):
        return "–"
    plus = "+" if sign else ""
    if unit == "share":
        return f"{100 * value:{plus}z.1f} %"
    if unit == "share_points":
        return f"{100 * value:{plus}z.1f} points"
    if unit == "points":
        return f"{value:{plus}z.1f} points"
    if unit == "p":
        return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
    return f"{value:{plus}z.3f}"


def excess(cell: Measured, unit: str) -> str:
    """A figure's difference to the retain arm."""
    return text(cell.excess, excess_unit(unit), sign=True)


def span(low: float, high: float, unit: str) -> str:
    """An interval in its unit; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    if unit in ("share", "share_points"):
        return f"{100 * low:z.1f} to {100 * high:z.1f}"
    digits = 1 if unit == "points" else 3
    return f"{low:z.{digits}f} to {high:z.{digits}f}"


def limits(cell: Measured, unit: str) -> str:
    """A figure's interval; one limit where no row, or every row, leaks. Empty where there is none."""
    if unit == "share" and not math.isnan(cell.high):
        if cell.value == 0:
            return f"at most {text(cell.high, unit)}"
        if cell.value == 1:
            return f"at least {text(cell.low, unit)}"
    return span(cell.low, cell.high, unit)


def excess_limits(cell: Measured, unit: str) -> str:
    """The interval of a figure's difference to the retain arm; empty where there is none."""
    return span(cell.excess_low, cell.excess_high, excess_unit(unit))
