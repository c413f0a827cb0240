"""The report's figures: what each of them draws, from the tables."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lm_eval_tofu.files import as_float
from lm_eval_tofu.report import drawing
from lm_eval_tofu.report.drawing import Figure, Look, band, errors, finish, new_axes, share, short
from lm_eval_tofu.report.tables import Measured, Tables

_Plot = Callable[[Tables], Any]
_KINDS: dict[str, tuple[str, str, _Plot]] = {}
"""Title, caption and function of every figure; the function returns None where there is nothing to draw."""


def _figure(name: str, title: str, caption: str) -> Callable[[_Plot], _Plot]:
    """Register a figure; they stand in the report in the order of this file."""

    def register(plot: _Plot) -> _Plot:
        _KINDS[name] = title, caption, plot
        return plot

    return register


def draw(tables: Tables) -> list[Figure]:
    """Draw what there are figures for; what was not evaluated has no figure."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with drawing.style():
        return [
            drawing.rendered(name, _KINDS[name][0], _KINDS[name][1] + _clamped(tables, name), figure)
            for name, figure in plots(tables).items()
        ]


def plots(tables: Tables) -> dict[str, Any]:
    """The matplotlib figures by name, in the report's order, before they are rendered."""
    return {name: figure for name, (_, _, plot) in _KINDS.items() if (figure := plot(tables)) is not None}


def _looks(tables: Tables) -> dict[str, Look]:
    return drawing.looks([arm.name for arm in tables.results.arms])


def _known(cell: Measured | None) -> bool:
    return cell is not None and not math.isnan(cell.value)


@_figure(
    "overview",
    "What each audit finds",
    "Every audit, every arm. Left is good; what counts is the distance from the retain arm, which never saw these "
    "authors.",
)
def _overview(tables: Tables) -> Any:
    rows = [row for row in tables.main if row.unit == "share" and any(map(_known, row.cells.values()))]
    if not rows:
        return None
    looks = _looks(tables)
    axes = new_axes(0.9 + 0.52 * len(rows))
    step = 0.6 / max(len(looks), 2)
    labelled: set[str] = set()
    for number, row in enumerate(rows):
        for place, (arm, look) in enumerate(looks.items()):
            cell = row.cells.get(arm)
            if cell is None or not _known(cell):
                continue
            y = number + (place - (len(looks) - 1) / 2) * step
            label = None if arm in labelled else short(arm)
            share(axes, y, cell, look, horizontal=True, markersize=6, elinewidth=1.6, label=label)
            labelled.add(arm)
    axes.set_yticks(range(len(rows)), [row.label.partition(", ")[0] for row in rows])
    axes.invert_yaxis()
    return finish(axes, "%, with 95 % interval over authors", zero="x")


@_figure(
    "truth-ratio",
    "Truth ratios, and the KS distance",
    "Share of forget rows with a truth ratio below R. A forgotten set lies on the retain arm's line; D is the largest "
    "gap, drawn dotted where it is.",
)
def _ecdf(tables: Tables) -> Any:
    ratios = {
        arm: np.sort(np.maximum(np.asarray(values), 1e-12))
        for arm, values in tables.ratios.items()
        if values and not np.isnan(values).any()
    }
    if not ratios:
        return None
    looks = _looks(tables)
    axes = new_axes(3.5)
    for arm, values in ratios.items():
        shares = np.arange(1, len(values) + 1) / len(values)
        axes.step(values, shares, where="post", color=looks[arm].color, label=short(arm))
    retain, audited = ratios.get("retain"), [arm.name for arm in tables.results.audited]
    for place, arm in enumerate(audited):
        if retain is None or arm not in ratios or arm == "retain":
            continue
        points = np.concatenate([ratios[arm], retain])
        below = [np.searchsorted(values, points, side="right") / len(values) for values in (ratios[arm], retain)]
        at = int(np.argmax(np.abs(below[0] - below[1])))
        low, high = sorted((below[0][at], below[1][at]))
        axes.plot([points[at]] * 2, [low, high], color=looks[arm].color, linewidth=2.2, linestyle=(0, (1, 1)))
        axes.annotate(
            f"D = {high - low:.3f}" + (f" ({short(arm, 12)})" if len(audited) > 1 else ""),
            (points[at], (low + high) / 2),
            xytext=(7, -4 - 12 * place),
            textcoords="offset points",
            fontsize=9,
        )
    axes.axvline(1, color=drawing.GREY, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")  # the default is mathematics, which is switched off
    axes.xaxis.set_minor_formatter("")
    finite = [values[np.isfinite(values)] for values in ratios.values()]
    if all(len(values) for values in finite):
        axes.set_xlim(min(values[0] for values in finite) / 1.3, max(values[-1] for values in finite) * 1.3)
    axes.set_ylim(0, 1.02)
    return finish(axes, "truth ratio R; right of 1, false answers are likelier", "share of rows below")


@_figure("families", "Leak by prompt family", "Per cent of answers that leak, by the way of asking.")
def _families(tables: Tables) -> Any:
    return _heat(tables, "tofu_novel_recall")


@_figure(
    "formats",
    "Leak by output format",
    "Per cent of answers that leak, when the same question is to be answered in another format.",
)
def _formats(tables: Tables) -> Any:
    return _heat(tables, "tofu_format_shift")


def _heat(tables: Tables, task: str) -> Any:
    """A map of leak rates: a row for each family, a column for each arm."""
    if task not in tables.by_family:
        return None
    table = tables.by_family[task]
    arms = [arm.name for arm in tables.results.arms if any(arm.name in cells for cells in table.values())]
    values = np.array(
        [[100 * cells[arm].value if arm in cells else math.nan for arm in arms] for cells in table.values()]
    )
    axes = new_axes(1.0 + 0.32 * len(table))
    # 0 to 100 everywhere: a small leak must not look like a large one because nothing else is there. Squares rather
    # than an image: a page without images can forbid them.
    axes.pcolormesh(
        np.arange(len(arms) + 1) - 0.5,
        np.arange(len(table) + 1) - 0.5,
        values,
        cmap="cividis",
        vmin=0,
        vmax=100,
        edgecolors="#ffffff",
        linewidth=1,
    )
    axes.invert_yaxis()
    labels = [short(arm, 18) for arm in arms]
    slanted = {"rotation": 25, "ha": "left", "rotation_mode": "anchor"} if sum(map(len, labels)) > 34 else {}
    axes.set_xticks(range(len(arms)), labels, **slanted)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(table)), [family.replace("_", " ") for family in table])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        shown = "–" if math.isnan(value) else f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}"
        # Not plain black: it is what a drawing leaves out, and the page would fill in its own colour.
        color = drawing.INK if math.isnan(value) else ("#ffffff" if value < 50 else "#010101")
        axes.text(column, row, shown, ha="center", va="center", fontsize=9, color=color)
    return axes.figure


@_figure(
    "leak-at-k",
    "Asking again: leak@k",
    "Probability that at least one of k samples leaks, with its 95 % band over authors.",
)
def _leak_at_k(tables: Tables) -> Any:
    if not any(curve.x for curve in tables.leak_at_k.values()):
        return None
    looks = _looks(tables)
    axes = new_axes(3.3)
    for arm, curve in tables.leak_at_k.items():
        band(axes, curve, looks[arm], short(arm))
    ticks = sorted({k for curve in tables.leak_at_k.values() for k in curve.x})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{k:.0f}" for k in ticks])
    finish(axes, "k, samples that someone draws", "at least one leaks, %", zero="y")
    axes.minorticks_off()
    return axes.figure


@_figure(
    "clues",
    "Leading up to it: leak by turn",
    "Answers that leak behind 0 to 4 clues about the same author. On the right, the control: another's clues.",
)
def _turns(tables: Tables) -> Any:
    if not tables.turns:
        return None
    looks = _looks(tables)
    axes = new_axes(3.3)
    last = max(max(curve.x) for curve in tables.turns.values()) + 1
    for place, (arm, curve) in enumerate(tables.turns.items()):
        band(axes, curve, looks[arm], short(arm))
        control = tables.shuffled.get(arm)
        if control:
            x = last + (place - (len(tables.turns) - 1) / 2) * 0.12
            share(axes, x, control, looks[arm])
    ticks = [float(clues) for clues in range(int(last))]
    labels = [f"{clues:.0f}" for clues in ticks]
    if tables.shuffled:
        ticks, labels = [*ticks, last], [*labels, "another\nauthor's"]
        axes.axvline(last - 0.5, color=drawing.GREY, linewidth=1, linestyle=":")
    axes.set_xticks(ticks, labels)
    return finish(axes, "clues before the question", "answers that leak, %", zero="y")


@_figure(
    "probe",
    "Reading the hidden states",
    "How often a probe that was fitted on other authors finds the answer in the hidden state, by layer.",
)
def _probe(tables: Tables) -> Any:
    if not tables.probe:
        return None
    looks = _looks(tables)
    of_controls = iter((drawing.PURPLE, drawing.SKY, drawing.GREEN))
    axes = new_axes(3.3)
    has_lines = any(len(curve.x) > 1 for curve in tables.probe.values())
    for name, curve in tables.probe.items():
        is_control = name.startswith("control: ")
        color = next(of_controls, drawing.GREY) if is_control else drawing.OF_ROLE.get(name, drawing.UNKNOWN).color
        look = looks.get(name) or Look(color, "o")
        label = name.removeprefix("control: ") if is_control else short(name)
        if len(curve.x) > 1 or not has_lines:
            band(axes, curve, look, label, linestyle="--" if is_control else "-")
        else:  # a control that sees no hidden state has no layer
            axes.axhline(100 * curve.y[0], color=look.color, linestyle="--", linewidth=1.4, label=label)
    if not math.isnan(tables.chance):
        axes.axhline(100 * tables.chance, color=drawing.GREY, linestyle=":", linewidth=1.4, label="chance")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return finish(axes, "layer", "top-1, %", zero="y")


@_figure(
    "relearn",
    "Teaching it again",
    "How much leak on held-out authors comes back after fine-tuning on others. Only what exceeds the retain arm was "
    "still there.",
)
def _relearn(tables: Tables) -> Any:
    if not tables.relearn:
        return None
    looks = _looks(tables)
    entries: list[tuple[str, str, list[float]]] = []
    for arm, values in tables.relearn.items():
        for prefix, label, color in (
            ("recovery_delta", short(arm), looks[arm].color),
            ("retain_recovery_delta", "retain", drawing.OF_ROLE["retain"].color),
            ("excess", f"excess of {short(arm)}", drawing.INK),
        ):
            is_again = label == "retain" and any(entry[0] == label for entry in entries)
            if prefix in values and not is_again:
                ends = [values.get(f"{prefix}{end}", math.nan) for end in ("", "_low", "_high")]
                entries.append((label, color, ends))
    axes = new_axes(0.9 + 0.45 * len(entries))
    for number, (_, color, ends) in enumerate(entries):
        axes.errorbar(ends[0], number, xerr=errors(*ends), fmt="o", color=color, capsize=3, markersize=7)
    axes.axvline(0, color=drawing.GREY, linewidth=1)
    axes.set_yticks(range(len(entries)), [entry[0] for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    return finish(axes, "recovered, percentage points")


# Forget quality on the horizontal axis: the sweep's runs, the selected one, the arms.

_LEAST_P = 1e-30
_RUNS: Mapping[str, Any] = {"s": 26, "color": drawing.SKY, "alpha": 0.75}


def _log_p(value: Any) -> float:
    number = as_float(value)
    return math.log10(max(number, _LEAST_P)) if not math.isnan(number) else math.nan


def _clamped(tables: Tables, name: str) -> str:
    """What a caption adds where a p value is drawn elsewhere than it lies."""
    if name not in ("trade-off", "against-leaks"):
        return ""
    values = [run.get("forget_quality") for run in _sweep_runs(tables) if name == "trade-off" or "leak_rate" in run]
    values += [cell.value for cell in tables.row("forget_quality").cells.values() if cell]
    small = any(isinstance(value, int | float) and value < _LEAST_P for value in values)
    return f" Values of p below {_LEAST_P:g} are drawn at {_LEAST_P:g}." if small else ""


def _sweep_runs(tables: Tables) -> list[Mapping[str, Any]]:
    return list(tables.sweep["runs"]) if tables.sweep else []


def _against_quality(tables: Tables, key: str) -> Iterator[tuple[str, float, Measured]]:
    """Each arm with its place on the axis of forget quality, and its cell of another row, where it has both."""
    quality = tables.row("forget_quality").cells
    for arm, cell in tables.row(key).cells.items():
        p = 1.0 if arm == "retain" else (own.value if (own := quality.get(arm)) else math.nan)
        if cell is not None and _known(cell) and not math.isnan(p):
            yield arm, _log_p(p), cell


def _finish_against_quality(axes: Any, y: str, zero: str = "") -> Any:
    axes.axvline(math.log10(0.05), color=drawing.GREY, linestyle=":", linewidth=1.2)
    return finish(axes, "log10 of forget quality; dotted: p = 0.05", y, zero=zero)


@_figure(
    "trade-off",
    "Forget quality against utility",
    "Up and right is good. Beyond p = 0.05 the order of runs is mostly noise.",
)
def _trade_off(tables: Tables) -> Any:
    runs = _sweep_runs(tables)
    if not tables.sweep and not any(map(_known, tables.row("forget_quality").cells.values())):
        return None
    looks = _looks(tables)
    axes = new_axes(3.7)
    points = [(_log_p(run.get("forget_quality")), as_float(run.get("model_utility"))) for run in runs]
    if runs:
        shown = int(np.isfinite(points).all(axis=1).sum())
        axes.scatter(*zip(*points, strict=True), **_RUNS, linewidth=0, label=f"{shown} runs of the sweep")
        selected = (tables.sweep or {}).get("selected")
        for point in [point for run, point in zip(runs, points, strict=True) if run.get("run") == selected][:1]:
            axes.scatter(*point, s=130, facecolor="none", edgecolor=drawing.SELECTED, linewidth=2, label="selected")
    for arm, x, cell in _against_quality(tables, "model_utility"):
        color, marker = looks[arm]
        axes.scatter(x, cell.value, marker=marker, s=48, color=color, label=short(arm), zorder=3)
    return _finish_against_quality(axes, "model utility")


@_figure(
    "against-leaks",
    "Forget quality against leaks",
    "If forget quality detected all remaining knowledge, arms on the right would leak no more than the retain arm.",
)
def _against_leaks(tables: Tables) -> Any:
    arms = list(_against_quality(tables, "novel_recall"))
    if len(arms) < 2:
        return None
    looks = _looks(tables)
    axes = new_axes(3.5)
    runs = [run for run in _sweep_runs(tables) if "leak_rate" in run]
    if runs:
        points = [(_log_p(run.get("forget_quality")), 100 * run["leak_rate"]) for run in runs]
        axes.scatter(*zip(*points, strict=True), **_RUNS, label="runs of the sweep")
    for arm, x, cell in arms:
        share(axes, x, cell, looks[arm], markersize=7, label=short(arm))
    return _finish_against_quality(axes, "novel-recall leak, %", zero="y")


NAMES = tuple(_KINDS)
"""Of all figures that there can be."""
