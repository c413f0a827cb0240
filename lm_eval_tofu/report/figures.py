"""The figures, drawn once with matplotlib: as SVG for the page, and as SVG and PNG files beside it.

Text and lines have colours of their own that the page replaces with its text colour, so that one drawing is right on
light and dark ground.
"""

import io
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_tofu.report.leaks import visible
from lm_eval_tofu.report.load import as_float
from lm_eval_tofu.report.tables import Curve, Row, Tables

# Okabe and Ito's palette, safe for the colour-blind; the arms of a role always have the same one.
_BLUE, _ORANGE, _GREEN, _VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PURPLE, _SKY, _GREY = "#CC79A7", "#56B4E9", "#888888"
_OF_ROLE = {"base": _GREY, "full": _ORANGE, "retain": _BLUE, "unlearned": _VERMILLION}
_OTHERS = (_GREEN, _PURPLE, _SKY, _VERMILLION)
_MARKERS = {"base": "s", "full": "^", "retain": "o", "unlearned": "D"}
_OTHER_MARKERS = ("v", "P", "X", "*")

_INK, _PAPER = "#1b1c1d", "#fefefd"
"""Colours that nothing else in a drawing has; the page replaces them."""
_WIDTH = 4.7
_DPI = 150
_STYLE: Mapping[str, Any] = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "figure.facecolor": _PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": _PAPER,
    "svg.fonttype": "none",
    "lines.linewidth": 1.8,
    "axes.grid": True,
    "grid.color": _GREY,
    "grid.alpha": 0.25,
}


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: Of its files, and its anchor.
        title: Heading.
        caption: What it shows and how to read it.
        inline: SVG for the page.
        svg: SVG as a file, on white ground.
        png: The same as PNG.
    """

    name: str
    title: str
    caption: str
    inline: str
    svg: str
    png: bytes


def draw(tables: Tables) -> list[Figure]:
    """Draw what there are figures for; what was not evaluated has no figure."""
    import matplotlib as mpl

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with mpl.rc_context(dict(_STYLE)):
        plotted = plots(tables)
        return [
            _render(name, title, caption + _clamped(tables, name), plotted[name])
            for name, title, caption, _, _ in _FIGURES
            if name in plotted
        ]


def plots(tables: Tables) -> dict[str, Any]:
    """The matplotlib figures by name, in the report's order, before they are rendered."""
    return {name: plot(tables) for name, _, _, wanted, plot in _FIGURES if wanted(tables)}


def _render(name: str, title: str, caption: str, figure: Any) -> Figure:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    drawing, picture = io.StringIO(), io.BytesIO()
    # The layout is the dear part, and the same for both files; savefig would draw each of them twice.
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    with mpl.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(drawing, metadata={"Date": None, "Creator": None})
    figure.dpi = _DPI
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    svg = drawing.getvalue()
    return Figure(name, title, caption, _inline(svg, name, title), svg, picture.getvalue())


def _inline(svg: str, name: str, title: str) -> str:
    """The drawing for the page: scalable, without ids that others have too, in the page's colours."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    body = re.sub(r'(<svg [^>]*?)\swidth="([\d.]+)pt" height="[\d.]+pt"|(<svg )', _sized, body, count=1)
    body = body.replace(_PAPER, "none").replace(_INK, "currentColor")
    return body.replace("<svg ", f'<svg class="figure" role="img" aria-label="{escape(title)}" ', 1)


def _sized(match: re.Match[str]) -> str:
    return match[1] or match[3]


def _axes(height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    # Not pyplot: it keeps figures of its own and chooses a backend.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


class _Look(NamedTuple):
    color: str
    marker: str


def _looks(tables: Tables) -> dict[str, _Look]:
    looks: dict[str, _Look] = {}
    number = 0
    for arm in tables.results.arms:
        if arm.name in _OF_ROLE:
            looks[arm.name] = _Look(_OF_ROLE[arm.name], _MARKERS[arm.name])
        else:
            free = [color for color in _OTHERS if color != _VERMILLION or not tables.results.arm("unlearned")]
            looks[arm.name] = _Look(free[number % len(free)], _OTHER_MARKERS[number % len(_OTHER_MARKERS)])
            number += 1
    return looks


def _name(arm: str, longest: int = 24) -> str:
    shown = visible(arm)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = 3 if max(map(len, labels)) > 12 else 4
        axes.figure.legend(
            handles, labels, loc="outside upper center", ncols=min(len(labels), columns), fontsize=9, handlelength=1.4
        )


def _errors(value: float, low: float, high: float) -> list[list[float]] | None:
    if math.isnan(low) or math.isnan(high):
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


# Overview: every audit's share by arm.


def _overview(tables: Tables) -> Any:
    rows = [row for row in tables.main if row.unit == "share" and _has_values(row)]
    looks = _looks(tables)
    figure, axes = _axes(0.9 + 0.52 * len(rows))
    step = 0.6 / max(len(looks), 2)
    labelled: set[str] = set()
    for number, row in enumerate(rows):
        for place, (arm, look) in enumerate(looks.items()):
            cell = row.cells.get(arm)
            if cell is None or math.isnan(cell.value):
                continue
            y = number + (place - (len(looks) - 1) / 2) * step
            axes.errorbar(
                100 * cell.value,
                y,
                xerr=_errors(100 * cell.value, 100 * cell.low, 100 * cell.high),
                fmt=look.marker,
                color=look.color,
                markersize=6,
                elinewidth=1.6,
                capsize=2.5,
                label=None if arm in labelled else _name(arm),
            )
            labelled.add(arm)
    axes.set_yticks(range(len(rows)), [row.label.partition(", ")[0] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("%, with 95 % interval over authors")
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    _legend(axes)
    return figure


def _ecdf(tables: Tables) -> Any:
    looks = _looks(tables)
    figure, axes = _axes(3.5)
    sorted_ratios = {
        arm: np.sort(np.maximum(np.asarray(ratios), 1e-12))
        for arm, ratios in tables.ratios.items()
        if ratios and not np.isnan(ratios).any()
    }
    finite = [values[np.isfinite(values)] for values in sorted_ratios.values()]
    for arm, values in sorted_ratios.items():
        shares = np.arange(1, len(values) + 1) / len(values)
        axes.step(values, shares, where="post", color=looks[arm].color, label=_name(arm))
    retain = sorted_ratios.get("retain")
    for place, arm in enumerate(arm.name for arm in tables.results.audited):
        if retain is None or arm not in sorted_ratios or arm == "retain":
            continue
        ours = sorted_ratios[arm]
        places = np.concatenate([ours, retain])
        below = [np.searchsorted(values, places, side="right") / len(values) for values in (ours, retain)]
        at = int(np.argmax(np.abs(below[0] - below[1])))
        low, high = sorted((below[0][at], below[1][at]))
        axes.plot([places[at]] * 2, [low, high], color=looks[arm].color, linewidth=2.2, linestyle=(0, (1, 1)))
        axes.annotate(
            f"D = {high - low:.3f}" + (f" ({_name(arm, 12)})" if len(tables.results.audited) > 1 else ""),
            (places[at], (low + high) / 2),
            xytext=(7, -4 - 12 * place),
            textcoords="offset points",
            fontsize=9,
        )
    axes.axvline(1, color=_GREY, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")  # the default is mathematics, which is switched off
    axes.xaxis.set_minor_formatter("")
    if finite and all(len(values) for values in finite):
        axes.set_xlim(min(values[0] for values in finite) / 1.3, max(values[-1] for values in finite) * 1.3)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("truth ratio R; right of 1, false answers are likelier")
    axes.set_ylabel("share of rows below")
    _legend(axes)
    return figure


def _heat(task: str) -> Callable[[Tables], Any]:
    def plot(tables: Tables) -> Any:
        table = tables.by_family[task]
        arms = [arm.name for arm in tables.results.arms if any(arm.name in cells for cells in table.values())]
        values = np.array(
            [[100 * cells[arm].value if arm in cells else math.nan for arm in arms] for cells in table.values()]
        )
        figure, axes = _axes(1.0 + 0.32 * len(table))
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
        labels = [_name(arm, 18) for arm in arms]
        slanted = {"rotation": 25, "ha": "left", "rotation_mode": "anchor"} if sum(map(len, labels)) > 34 else {}
        axes.set_xticks(range(len(arms)), labels, **slanted)
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(table)), [family.replace("_", " ") for family in table])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            shown = "–" if math.isnan(value) else f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}"
            # Not plain black: it is what a drawing leaves out, and the page would fill in its own colour.
            color = _INK if math.isnan(value) else ("#ffffff" if value < 50 else "#010101")
            axes.text(column, row, shown, ha="center", va="center", fontsize=9, color=color)
        return figure

    return plot


def _band(axes: Any, curve: Curve, look: _Look, label: str | None, scale: float = 100, **options: Any) -> None:
    y, low, high = (scale * np.asarray(values) for values in curve[1:])
    axes.plot(curve.x, y, color=look.color, marker=look.marker, markersize=4.5, label=label, **options)
    if len(curve.x) > 1 and not (np.isnan(low).all() or np.isnan(high).all()):
        axes.fill_between(curve.x, low, high, color=look.color, alpha=0.18, linewidth=0)
    elif len(curve.x) == 1 and (errors := _errors(y[0], low[0], high[0])):  # a band needs two points
        axes.errorbar(curve.x, y, yerr=errors, fmt="none", ecolor=look.color, capsize=2.5)


def _label(axes: Any, ticks: list[float], names: list[str], x: str, y: str) -> None:
    """Name the axes of curves of percentages, which begin at 0 at the latest."""
    axes.set_xticks(ticks, names)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _legend(axes)


def _leak_at_k(tables: Tables) -> Any:
    looks = _looks(tables)
    figure, axes = _axes(3.3)
    for arm, curve in tables.leak_at_k.items():
        _band(axes, curve, looks[arm], _name(arm))
    ticks = sorted({k for curve in tables.leak_at_k.values() for k in curve.x})
    axes.set_xscale("log", base=2)
    _label(axes, ticks, [f"{k:.0f}" for k in ticks], "k, samples that someone draws", "at least one leaks, %")
    axes.minorticks_off()
    return figure


def _turns(tables: Tables) -> Any:
    looks = _looks(tables)
    figure, axes = _axes(3.3)
    most = max(max(curve.x) for curve in tables.turns.values())
    for place, (arm, curve) in enumerate(tables.turns.items()):
        _band(axes, curve, looks[arm], _name(arm))
        control = tables.shuffled.get(arm)
        if control:
            x = most + 1 + (place - (len(tables.turns) - 1) / 2) * 0.12
            value, low, high = (100 * part for part in control[:3])
            axes.errorbar(
                x, value, yerr=_errors(value, low, high), fmt=looks[arm].marker, color=looks[arm].color, capsize=2.5
            )
    ticks = [float(clues) for clues in range(int(most) + 1)]
    labels = [f"{clues:.0f}" for clues in ticks]
    if tables.shuffled:
        ticks, labels = [*ticks, most + 1], [*labels, "another\nauthor's"]
        axes.axvline(most + 0.5, color=_GREY, linewidth=1, linestyle=":")
    _label(axes, ticks, labels, "clues before the question", "answers that leak, %")
    return figure


def _probe(tables: Tables) -> Any:
    looks = _looks(tables)
    controls = iter((_PURPLE, _SKY, _GREEN))
    figure, axes = _axes(3.3)
    lines = {name: curve for name, curve in tables.probe.items() if len(curve.x) > 1}
    for name, curve in tables.probe.items():
        is_control = name.startswith("control: ")
        look = looks.get(name) or _Look(next(controls, _GREY) if is_control else _OF_ROLE.get(name, _GREY), "o")
        label = name.removeprefix("control: ") if is_control else _name(name)
        if len(curve.x) > 1 or not lines:
            _band(axes, curve, look, label, linestyle="--" if is_control else "-")
        else:  # a control that sees no hidden state has no layer
            axes.axhline(100 * curve.y[0], color=look.color, linestyle="--", linewidth=1.4, label=label)
    if not math.isnan(tables.chance):
        axes.axhline(100 * tables.chance, color=_GREY, linestyle=":", linewidth=1.4, label="chance")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("layer")
    axes.set_ylabel("top-1, %")
    _legend(axes)
    return figure


def _relearn(tables: Tables) -> Any:
    looks = _looks(tables)
    entries: list[tuple[str, str, float, float, float]] = []
    for arm, values in tables.relearn.items():
        get = values.get
        for prefix, label, color in (
            ("recovery_delta", _name(arm), looks[arm].color),
            ("retain_recovery_delta", "retain", _OF_ROLE["retain"]),
            ("excess", f"excess of {_name(arm)}", _INK),
        ):
            if prefix in values and not (
                prefix.startswith("retain") and any(entry[0] == "retain" for entry in entries)
            ):
                limits = (get(f"{prefix}_low", math.nan), get(f"{prefix}_high", math.nan))
                entries.append((label, color, values[prefix], *limits))
    figure, axes = _axes(0.9 + 0.45 * len(entries))
    for number, (_, color, value, low, high) in enumerate(entries):
        axes.errorbar(value, number, xerr=_errors(value, low, high), fmt="o", color=color, capsize=3, markersize=7)
    axes.axvline(0, color=_GREY, linewidth=1)
    axes.set_yticks(range(len(entries)), [entry[0] for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlabel("recovered, percentage points")
    return figure


def _has_values(row: Row) -> bool:
    return any(cell is not None and not math.isnan(cell.value) for cell in row.cells.values())


_LEAST_P = 1e-30


def _log_p(value: Any) -> float:
    number = as_float(value)
    return math.log10(max(number, _LEAST_P)) if not math.isnan(number) else math.nan


def _clamped(tables: Tables, name: str) -> str:
    """What a caption adds where a p value is drawn elsewhere than it lies."""
    runs = [run for run in _sweep_runs(tables) if name == "trade-off" or "leak_rate" in run]
    quality = next(row for row in tables.main if row.key == "forget_quality").cells.values()
    values = [run.get("forget_quality") for run in runs] + [cell.value for cell in quality if cell]
    if name not in ("trade-off", "against-leaks"):
        return ""
    small = any(isinstance(value, int | float) and value < _LEAST_P for value in values)
    return f" Values of p below {_LEAST_P:g} are drawn at {_LEAST_P:g}." if small else ""


def _sweep_runs(tables: Tables) -> list[Mapping[str, Any]]:
    return list(tables.sweep["runs"]) if tables.sweep else []


def _trade_off(tables: Tables) -> Any:
    """Forget quality against utility: the sweep's runs, the selected one, the arms."""
    looks = _looks(tables)
    figure, axes = _axes(3.7)
    runs = _sweep_runs(tables)
    if runs:
        x = [_log_p(run.get("forget_quality")) for run in runs]
        y = [as_float(run.get("model_utility")) for run in runs]
        shown = int(np.isfinite([x, y]).all(axis=0).sum())
        axes.scatter(x, y, s=26, color=_SKY, alpha=0.75, linewidth=0, label=f"{shown} runs of the sweep")
        selected = next((run for run in runs if run.get("run") == (tables.sweep or {}).get("selected")), None)
        if selected:
            point = _log_p(selected.get("forget_quality")), as_float(selected.get("model_utility"))
            axes.scatter(*point, s=130, facecolor="none", edgecolor=_VERMILLION, linewidth=2, label="selected")
    quality = next(row for row in tables.main if row.key == "forget_quality").cells
    utility = next(row for row in tables.main if row.key == "model_utility").cells
    for arm, look in looks.items():
        worth = utility.get(arm)
        p = 1.0 if arm == "retain" else (cell.value if (cell := quality.get(arm)) else math.nan)
        if worth and not math.isnan(worth.value) and not math.isnan(p):
            axes.scatter(_log_p(p), worth.value, marker=look.marker, s=48, color=look.color, label=_name(arm), zorder=3)
    axes.axvline(math.log10(0.05), color=_GREY, linestyle=":", linewidth=1.2)
    axes.set_xlabel("log10 of forget quality; dotted: p = 0.05")
    axes.set_ylabel("model utility")
    _legend(axes)
    return figure


def _against_leaks(tables: Tables) -> Any:
    looks = _looks(tables)
    figure, axes = _axes(3.5)
    runs = [run for run in _sweep_runs(tables) if "leak_rate" in run]
    if runs:
        axes.scatter(
            [_log_p(run.get("forget_quality")) for run in runs],
            [100 * run["leak_rate"] for run in runs],
            s=26,
            color=_SKY,
            alpha=0.75,
            label="runs of the sweep",
        )
    for arm, p, cell in _quality_and_leak(tables):
        axes.errorbar(
            _log_p(p),
            100 * cell.value,
            yerr=_errors(100 * cell.value, 100 * cell.low, 100 * cell.high),
            fmt=looks[arm].marker,
            color=looks[arm].color,
            markersize=7,
            capsize=2.5,
            label=_name(arm),
        )
    axes.axvline(math.log10(0.05), color=_GREY, linestyle=":", linewidth=1.2)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_xlabel("log10 of forget quality; dotted: p = 0.05")
    axes.set_ylabel("novel-recall leak, %")
    _legend(axes)
    return figure


def _quality_and_leak(tables: Tables) -> Iterator[tuple[str, float, Any]]:
    quality = next(row for row in tables.main if row.key == "forget_quality").cells
    leaks = next(row for row in tables.main if row.key == "novel_recall").cells
    for arm, cell in leaks.items():
        p = 1.0 if arm == "retain" else (own.value if (own := quality.get(arm)) else math.nan)
        if cell and not math.isnan(cell.value) and not math.isnan(p):
            yield arm, p, cell


_Plot = tuple[str, str, str, Callable[[Tables], Any], Callable[[Tables], Any]]
_FIGURES: Sequence[_Plot] = (
    (
        "overview",
        "What each audit finds",
        "Every audit, every arm. Left is good; what counts is the distance from the retain arm, which never saw these "
        "authors.",
        lambda tables: any(row.unit == "share" and _has_values(row) for row in tables.main),
        _overview,
    ),
    (
        "truth-ratio",
        "Truth ratios, and the KS distance",
        "Share of forget rows with a truth ratio below R. A forgotten set lies on the retain arm's line; D is the "
        "largest gap, drawn dotted where it is.",
        lambda tables: any(ratios and not np.isnan(ratios).any() for ratios in tables.ratios.values()),
        _ecdf,
    ),
    (
        "families",
        "Leak by prompt family",
        "Per cent of answers that leak, by the way of asking.",
        lambda tables: "tofu_novel_recall" in tables.by_family,
        _heat("tofu_novel_recall"),
    ),
    (
        "formats",
        "Leak by output format",
        "Per cent of answers that leak, when the same question is to be answered in another format.",
        lambda tables: "tofu_format_shift" in tables.by_family,
        _heat("tofu_format_shift"),
    ),
    (
        "leak-at-k",
        "Asking again: leak@k",
        "Probability that at least one of k samples leaks, with its 95 % band over authors.",
        lambda tables: any(curve.x for curve in tables.leak_at_k.values()),
        _leak_at_k,
    ),
    (
        "clues",
        "Leading up to it: leak by turn",
        "Answers that leak behind 0 to 4 clues about the same author. On the right, the control: another's clues.",
        lambda tables: bool(tables.turns),
        _turns,
    ),
    (
        "probe",
        "Reading the hidden states",
        "How often a probe that was fitted on other authors finds the answer in the hidden state, by layer.",
        lambda tables: bool(tables.probe),
        _probe,
    ),
    (
        "relearn",
        "Teaching it again",
        "How much leak on held-out authors comes back after fine-tuning on others. Only what exceeds the retain "
        "arm was still there.",
        lambda tables: bool(tables.relearn),
        _relearn,
    ),
    (
        "trade-off",
        "Forget quality against utility",
        "Up and right is good. Beyond p = 0.05 the order of runs is mostly noise.",
        lambda tables: (
            bool(tables.sweep) or any(row.key == "forget_quality" and _has_values(row) for row in tables.main)
        ),
        _trade_off,
    ),
    (
        "against-leaks",
        "Forget quality against leaks",
        "If forget quality told all, the points on the right would lie at the bottom, on the retain arm's level.",
        lambda tables: sum(1 for _ in _quality_and_leak(tables)) > 1,
        _against_leaks,
    ),
)


NAMES = tuple(plot[0] for plot in _FIGURES)
"""Of all figures that there can be."""
