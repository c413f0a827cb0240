"""How the report's figures look, and their rendering by matplotlib: as SVG for the page, and as SVG and PNG files.

Text and lines have colours of their own that the page replaces with its text colour, so that one drawing is right on
light and dark ground.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_tofu.report.leaks import visible
from lm_eval_tofu.report.probes import Curve
from lm_eval_tofu.report.tables import Measured

# Okabe and Ito's palette, safe for the colour-blind; the arms of a role always have the same one.
_BLUE, _ORANGE, GREEN, _VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#888888"
INK, _PAPER = "#1b1c1d", "#fefefd"
"""Colours that nothing else in a drawing has; the page replaces them."""
_WIDTH = 4.7
_DPI = 150
_STYLE: Mapping[str, Any] = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "figure.facecolor": _PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": _PAPER,
    "svg.fonttype": "none",
    "lines.linewidth": 1.8,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
}


class Look(NamedTuple):
    """Colour and marker of an arm."""

    color: str
    marker: str


OF_ROLE = {
    "base": Look(GREY, "s"),
    "full": Look(_ORANGE, "^"),
    "retain": Look(_BLUE, "o"),
    "unlearned": Look(_VERMILLION, "D"),
}
_OTHER_COLORS, _OTHER_MARKERS = (GREEN, PURPLE, SKY, _VERMILLION), ("v", "P", "X", "*")
UNKNOWN = Look(GREY, "o")
SELECTED = _VERMILLION


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """An arm's look is that of its role, else the next that is free."""
    colors = [color for color in _OTHER_COLORS if color != _VERMILLION or "unlearned" not in arms]
    others = [arm for arm in arms if arm not in OF_ROLE]
    free = {
        arm: Look(colors[number % len(colors)], _OTHER_MARKERS[number % len(_OTHER_MARKERS)])
        for number, arm in enumerate(others)
    }
    return {arm: OF_ROLE.get(arm) or free[arm] for arm in arms}


def short(arm: str, longest: int = 24) -> str:
    """An arm's name, cut to a length."""
    shown = visible(arm)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def style() -> Any:
    """A context in which matplotlib draws in the report's style."""
    import matplotlib as mpl

    return mpl.rc_context(dict(_STYLE))


def new_axes(height: float) -> Any:
    """The axes of a new figure; its height in inches."""
    # Not pyplot: it keeps figures of its own and chooses a backend.
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(_WIDTH, height), layout="constrained").subplots()


def legend(axes: Any) -> None:
    """Name above the axes what has a label."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = 3 if max(map(len, labels)) > 12 else 4
        axes.figure.legend(
            handles, labels, loc="outside upper center", ncols=min(len(labels), columns), fontsize=9, handlelength=1.4
        )


def finish(axes: Any, x: str, y: str | None = None, *, zero: str = "") -> Any:
    """Name the axes, begin one of them (`x` or `y`) at 0 at the latest, add the legend, and return the figure."""
    if zero == "y":
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    elif zero == "x":
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.set_xlabel(x)
    if y is not None:
        axes.set_ylabel(y)
    legend(axes)
    return axes.figure


def errors(value: float, low: float, high: float) -> list[list[float]] | None:
    """An interval as matplotlib takes it; None where there is none."""
    if math.isnan(low) or math.isnan(high):
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def share(axes: Any, place: float, cell: Measured, look: Look, *, horizontal: bool = False, **options: Any) -> None:
    """A share in per cent with its interval; horizontally, its place is the height."""
    value, low, high = (100 * part for part in cell[:3])
    x, y, along = (value, place, "xerr") if horizontal else (place, value, "yerr")
    limits = {along: errors(value, low, high)}
    axes.errorbar(x, y, **limits, fmt=look.marker, color=look.color, capsize=2.5, **options)


def band(axes: Any, curve: Curve, look: Look, label: str, **options: Any) -> None:
    """A curve of shares in per cent, with a band for its intervals."""
    y, low, high = (100 * np.asarray(values) for values in curve[1:])
    axes.plot(curve.x, y, color=look.color, marker=look.marker, markersize=4.5, label=label, **options)
    if len(curve.x) > 1 and not (np.isnan(low).all() or np.isnan(high).all()):
        axes.fill_between(curve.x, low, high, color=look.color, alpha=0.18, linewidth=0)
    elif len(curve.x) == 1 and (limits := errors(y[0], low[0], high[0])):  # a band needs two points
        axes.errorbar(curve.x, y, yerr=limits, fmt="none", ecolor=look.color, capsize=2.5)


class Figure(NamedTuple):
    """One figure."""

    name: str  # of its files, and its anchor
    title: str
    caption: str  # what it shows and how to read it
    inline: str  # SVG for the page
    svg: str  # SVG as a file, on white ground
    png: bytes


def rendered(name: str, title: str, caption: str, figure: Any) -> Figure:
    """A matplotlib figure in its three forms."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    drawing, picture = io.StringIO(), io.BytesIO()
    # The layout takes most of the time and is the same for both files; savefig would compute it for each of them.
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
    body = re.sub(r"<(metadata|style)\b[^>]*>.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    body = re.sub(r'(<svg [^>]*?)\swidth="[\d.]+pt" height="[\d.]+pt"', r"\1", body, count=1)
    body = body.replace(_PAPER, "none").replace(INK, "currentColor")
    return body.replace("<svg ", f'<svg class="figure" role="img" aria-label="{escape(title)}" ', 1)
