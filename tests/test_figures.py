"""The report's figures by what they draw: the data of lines, bars, bands, cells and labels, from tables made by hand.

Every field of the tables has a value of its own, so that a figure that draws another field, or draws it at another
scale, differs.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from made_tables import measured
from made_tables import tables as made
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex

from lm_eval_tofu.report import drawing, figures
from lm_eval_tofu.report.probes import Curve
from lm_eval_tofu.report.tables import Tables

NAN = math.nan
COLORS = {"base": "#888888", "full": "#E69F00", "retain": "#0072B2", "unlearned": "#D55E00"}
MARKERS = {"base": "s", "full": "^", "retain": "o", "unlearned": "D"}


def drawn(name: str, tables: Tables) -> Any:
    """The one pair of axes of a figure."""
    [axes] = figures.plots(tables)[name].axes
    return axes


def color(artist: Any) -> str:
    return to_hex(artist.get_color()).upper()


def lines(axes: Any) -> list[Any]:
    """Lines in data coordinates: neither those from edge to edge nor the caps and markers of error bars."""
    of_bars = {id(line) for container in axes.containers for line in (container[0], *container[1])}
    return [line for line in axes.lines if line.get_transform() == axes.transData and id(line) not in of_bars]


def line(axes: Any, label: str) -> Any:
    [found] = [each for each in lines(axes) if each.get_label() == label]
    return found


def points(artist: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*artist.get_data(), strict=True)]


def across(axes: Any, *, at: float, vertical: bool) -> Any:
    """The line from edge to edge at a place."""
    [found] = [
        each
        for each in axes.lines
        if each.get_transform() == (axes.get_xaxis_transform() if vertical else axes.get_yaxis_transform())
        and set((each.get_xdata, each.get_ydata)[not vertical]()) == {at}
    ]
    return found


def bars(axes: Any) -> list[tuple[Any, tuple[float, float] | None, list[list[float]] | None]]:
    """Error bars: the line with its style, its point, and the interval's ends where there is one."""
    found = []
    for data, _, intervals in axes.containers:
        segments = [segment for collection in intervals for segment in collection.get_segments()]
        assert len(segments) <= 1
        place = None if data is None else points(data)[0]
        found.append((data or intervals[0], place, segments[0].tolist() if segments else None))
    return found


def band(axes: Any, shade: str) -> set[tuple[float, float]]:
    """The corners of the band of one colour."""
    [found] = [
        collection
        for collection in axes.collections
        if isinstance(collection, PolyCollection) and to_hex(collection.get_facecolor()[0]).upper() == shade
    ]
    return {(round(x, 9), round(y, 9)) for path in found.get_paths() for x, y in path.vertices}


def corners(x: list[float], low: list[float], high: list[float]) -> set[tuple[float, float]]:
    return {(a, b) for ends in (low, high) for a, b in zip(x, ends, strict=True)}


def legend(axes: Any) -> list[str]:
    return [text.get_text() for each in axes.figure.legends for text in each.get_texts()]


def ticks(axis: Any) -> list[tuple[float, str]]:
    places, labels = axis.get_ticklocs(), axis.get_ticklabels()
    return [(float(place), label.get_text()) for place, label in zip(places, labels, strict=True)]


def extent(axes: Any) -> np.ndarray:
    """Every finite point that is drawn in data coordinates: shape (n, 2)."""
    found = [np.column_stack(each.get_data()) for each in axes.lines if each.get_transform() == axes.transData]
    for each in axes.collections:
        if isinstance(each, PathCollection):
            found.append(np.asarray(each.get_offsets().filled(NAN)))
        elif isinstance(each, LineCollection):
            found += [np.asarray(segment) for segment in each.get_segments()]
        elif isinstance(each, QuadMesh):
            found.append(np.asarray(each.get_coordinates()).reshape(-1, 2))
        else:
            found += [path.vertices for path in each.get_paths()]
    place = np.concatenate([np.asarray(part, dtype=float).reshape(-1, 2) for part in found])
    return place[np.isfinite(place).all(axis=1)]


class TestOverview:
    TABLES = made(
        "full",
        "retain",
        "unlearned",
        row_forget_quality={"unlearned": measured(0.51, 0.41, 0.61)},
        row_novel_recall={
            "full": measured(0.83, 0.72, 0.95),
            "retain": measured(0.04, 0.0, 0.09),
            "unlearned": measured(0.31, 0.22, 0.47),
        },
        row_recognition={"full": None, "retain": measured(0.19), "unlearned": measured(NAN, 0.2, 0.3)},
        row_probe={"retain": measured(0.0, 0.0, 0.11), "unlearned": measured(0.62, -0.03, 0.7)},
        row_relearn={"unlearned": measured(7.6, 3.0, 12.0)},
    )

    def test_values_and_limits_in_per_cent(self) -> None:
        axes = drawn("overview", self.TABLES)
        found = {}
        for artist, place, interval in bars(axes):
            assert place is not None
            if interval is not None:
                assert {y for _, y in interval} == {place[1]}, "a bar lies at its point's height"
            ends = None if interval is None else [pytest.approx(x) for x, _ in interval]
            found[round(place[1]), color(artist), artist.get_marker()] = place[0], ends
        full, retain, unlearned = ((COLORS[arm], MARKERS[arm]) for arm in ("full", "retain", "unlearned"))
        assert found == {
            (0, *full): (pytest.approx(83), [72, 95]),
            (0, *retain): (pytest.approx(4), [0, 9]),
            (0, *unlearned): (pytest.approx(31), [22, 47]),
            (1, *retain): (pytest.approx(19), None),  # no interval, no bar
            (2, *retain): (0, [0, 11]),
            (2, *unlearned): (pytest.approx(62), [-3, 70]),
        }

    def test_arms_of_a_row_lie_above_one_another_and_within_it(self) -> None:
        places = [place for _, place, _ in bars(drawn("overview", self.TABLES)) if place]
        first = [y for x, y in places if round(y) == 0]
        assert first == sorted(first)
        assert first == pytest.approx([-0.2, 0, 0.2])

    def test_rows_by_their_labels_the_first_on_top(self) -> None:
        axes = drawn("overview", self.TABLES)
        assert ticks(axes.yaxis) == [(0, "Novel recall"), (1, "Recognition"), (2, "Probe")]
        bottom, top = axes.get_ylim()
        assert bottom > 2.2
        assert top < -0.2

    def test_every_arm_once_in_the_legend(self) -> None:
        axes = drawn("overview", self.TABLES)
        assert legend(axes) == ["full", "retain", "unlearned"]
        handles, labels = axes.get_legend_handles_labels()
        assert [color(handle[0]) for handle in handles] == [COLORS[label] for label in labels]

    def test_arms_whose_names_begin_alike_have_an_entry_each(self) -> None:
        long = "npo-epochs-5-lr-5e-05-alpha-1-beta-"
        cells = {f"{long}{beta}": measured(beta, beta / 2, beta * 1.5) for beta in (0.1, 0.5)}
        axes = drawn("overview", made(*cells, row_novel_recall=cells))
        assert len(legend(axes)) == 2

    def test_the_axis_begins_at_zero(self) -> None:
        cells = {"unlearned": measured(0.8, 0.7, 0.9)}
        assert drawn("overview", made("unlearned", row_novel_recall=cells)).get_xlim()[0] == 0

    def test_what_was_not_measured_has_no_figure(self) -> None:
        assert "overview" not in figures.plots(made("full", row_novel_recall={"full": measured(NAN), "retain": None}))


class TestTruthRatios:
    # By hand: at 3, three of four lie below in the first sample and none in the second; nowhere is the gap wider.
    RATIOS: Mapping[str, list[float]] = {
        "retain": [6.0, 3.5, 5.0, 4.5],
        "unlearned": [4.0, 1.0, 3.0, 2.0],
        "full": [0.25, NAN, 0.5, 0.75],
    }

    def test_steps(self) -> None:
        axes = drawn("truth-ratio", made("full", "retain", "unlearned", ratios=dict(self.RATIOS)))
        shares = [0.25, 0.5, 0.75, 1.0]
        for arm, expected in (("unlearned", [1, 2, 3, 4]), ("retain", [3.5, 4.5, 5, 6])):
            step = line(axes, arm)
            assert points(step) == list(zip(expected, shares, strict=True))
            assert step.get_drawstyle() == "steps-post"
            assert color(step) == COLORS[arm]
        assert legend(axes) == ["unlearned", "retain"] or legend(axes) == ["retain", "unlearned"]  # NaN: no line
        assert axes.get_xscale() == "log"
        assert across(axes, at=1, vertical=True).get_linestyle() == ":"

    def test_the_distance_where_it_is(self) -> None:
        from scipy.stats import ks_2samp

        axes = drawn("truth-ratio", made("retain", "unlearned", ratios=dict(self.RATIOS)))
        [gap] = [each for each in lines(axes) if each.get_label().startswith("_")]
        assert points(gap) == [(3, 0), (3, 0.75)]
        assert color(gap) == COLORS["unlearned"]
        assert ks_2samp(self.RATIOS["unlearned"], self.RATIOS["retain"]).statistic == 0.75
        [note] = axes.texts
        assert (note.get_text(), note.xy) == ("D = 0.750", (3, 0.375))

    def test_each_audited_arm_has_its_distance_and_name(self) -> None:
        ratios = {"retain": [1.0, 2.0], "mine": [1.0, 3.0], "other": [0.5, 0.5]}
        axes = drawn("truth-ratio", made("retain", "mine", "other", ratios=ratios))
        assert [(note.get_text(), note.xy) for note in axes.texts] == [
            ("D = 0.500 (mine)", (2, 0.75)),
            ("D = 1.000 (other)", (0.5, 0.5)),
        ]
        gaps = [each for each in lines(axes) if each.get_label().startswith("_")]
        assert [color(gap) for gap in gaps] == [color(line(axes, arm)) for arm in ("mine", "other")]
        assert len({note.xyann for note in axes.texts}) == 2, "the labels do not cover each other"

    def test_without_a_retain_arm_there_is_no_distance(self) -> None:
        axes = drawn("truth-ratio", made("unlearned", ratios={"unlearned": [1.0, 2.0]}))
        assert not axes.texts
        assert [each.get_label() for each in lines(axes)] == ["unlearned"]

    def test_zero_and_infinity(self) -> None:
        """A logarithmic axis has no zero, which is drawn at 1e-12; infinity lies beyond the axis."""
        axes = drawn("truth-ratio", made("unlearned", ratios={"unlearned": [0.0, math.inf, 2.0]}))
        assert points(line(axes, "unlearned")) == [
            (1e-12, pytest.approx(1 / 3)),
            (2, pytest.approx(2 / 3)),
            (math.inf, 1),
        ]
        left, right = axes.get_xlim()
        assert left < 1e-12
        assert 2 < right < 3

    def test_shares_are_seen_up_to_one(self) -> None:
        axes = drawn("truth-ratio", made("retain", "unlearned", ratios=dict(self.RATIOS)))
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 1


@pytest.mark.parametrize(
    ("name", "task"), [("families", "tofu_novel_recall"), ("formats", "tofu_format_shift")], ids=["families", "formats"]
)
class TestHeatMaps:
    @staticmethod
    def tables(task: str) -> Tables:
        other = "tofu_format_shift" if task == "tofu_novel_recall" else "tofu_novel_recall"
        table = {
            "direct": {"full": measured(0.96, 0.9, 0.99), "unlearned": measured(0.31, 0.2, 0.4)},
            "one_word": {"full": measured(0.5, 0.45, 0.55), "unlearned": measured(0.0304, 0.01, 0.05)},
            "cloze": {"unlearned": measured(0.0, 0.0, 0.08)},
        }
        return made("full", "retain", "unlearned", by_family={task: table, other: {"else": {"full": measured(0.123)}}})

    def test_cells_are_rates_in_per_cent(self, name: str, task: str) -> None:
        axes = drawn(name, self.tables(task))
        [mesh] = [each for each in axes.collections if isinstance(each, QuadMesh)]
        cells = np.ma.asarray(mesh.get_array()).filled(NAN)
        assert cells == pytest.approx(np.array([[96, 31], [50, 3.04], [NAN, 0]]), nan_ok=True)
        assert mesh.get_clim() == (0, 100), "a small leak looks small whatever else there is"
        assert mesh.get_coordinates()[0, :, 0].tolist() == [-0.5, 0.5, 1.5]
        assert mesh.get_coordinates()[:, 0, 1].tolist() == [-0.5, 0.5, 1.5, 2.5]

    def test_figures_in_the_cells(self, name: str, task: str) -> None:
        shown = {text.get_position(): text.get_text() for text in drawn(name, self.tables(task)).texts}
        assert shown == {(0, 0): "96", (1, 0): "31", (0, 1): "50", (1, 1): "3.0", (0, 2): "–", (1, 2): "0"}

    def test_figures_can_be_read_on_their_cells(self, name: str, task: str) -> None:
        """cividis is dark below the middle and light above it; where there is no cell, the ground is the page's."""
        axes = drawn(name, self.tables(task))
        [mesh] = [each for each in axes.collections if isinstance(each, QuadMesh)]
        for text in axes.texts:
            column, row = text.get_position()
            value = np.ma.asarray(mesh.get_array())[row, column]
            if np.ma.is_masked(value) or math.isnan(value):
                assert text.get_color() == "#1b1c1d"
                continue
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            is_light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45
            assert text.get_color() == ("#010101" if is_light else "#ffffff")

    def test_rows_and_columns_by_name(self, name: str, task: str) -> None:
        axes = drawn(name, self.tables(task))
        assert ticks(axes.xaxis) == [(0, "full"), (1, "unlearned")]
        assert ticks(axes.yaxis) == [(0, "direct"), (1, "one word"), (2, "cloze")]
        bottom, top = axes.get_ylim()
        assert bottom > top, "the first family is on top, beside its label"


class TestLeakAtK:
    CURVES: Mapping[str, Curve] = {
        "retain": Curve([1.0, 2.0, 4.0], [0.02, 0.03, 0.05], [0.0, 0.01, 0.02], [0.06, 0.07, 0.09]),
        "unlearned": Curve([1.0, 2.0, 4.0, 6.0], [0.2, 0.3, 0.4, 0.45], [0.11, 0.21, NAN, NAN], [0.29, 0.38, NAN, NAN]),
    }

    def test_lines_and_bands_in_per_cent(self) -> None:
        axes = drawn("leak-at-k", made("retain", "unlearned", leak_at_k=dict(self.CURVES)))
        for arm, x, y in (("retain", [1, 2, 4], [2, 3, 5]), ("unlearned", [1, 2, 4, 6], [20, 30, 40, 45])):
            curve = line(axes, arm)
            assert points(curve) == [(a, pytest.approx(b)) for a, b in zip(x, y, strict=True)]
            assert (color(curve), curve.get_marker()) == (COLORS[arm], MARKERS[arm])
        assert band(axes, COLORS["retain"]) == corners([1, 2, 4], [0, 1, 2], [6, 7, 9])
        assert band(axes, COLORS["unlearned"]) == corners([1, 2], [11, 21], [29, 38]), "no band without an interval"
        assert legend(axes) == ["retain", "unlearned"]

    def test_without_intervals_there_is_no_band(self) -> None:
        curve = Curve([1.0, 2.0], [0.2, 0.3], [NAN, NAN], [NAN, NAN])
        axes = drawn("leak-at-k", made("unlearned", leak_at_k={"unlearned": curve}))
        assert not axes.collections
        assert not axes.containers

    def test_one_sample_has_its_interval_too(self) -> None:
        axes = drawn("leak-at-k", made("unlearned", leak_at_k={"unlearned": Curve([1.0], [0.2], [0.11], [0.29])}))
        [(_, _, interval)] = bars(axes)
        assert interval == [[1, pytest.approx(11)], [1, pytest.approx(29)]]

    def test_one_sample_without_an_interval(self) -> None:
        axes = drawn("leak-at-k", made("unlearned", leak_at_k={"unlearned": Curve([1.0], [0.2], [NAN], [NAN])}))
        assert bars(axes) == []

    def test_every_k_of_any_arm_is_named(self) -> None:
        axes = drawn("leak-at-k", made("retain", "unlearned", leak_at_k=dict(self.CURVES)))
        assert ticks(axes.xaxis) == [(1, "1"), (2, "2"), (4, "4"), (6, "6")]
        assert axes.get_xscale() == "log"


class TestTurns:
    TABLES = made(
        "full",
        "unlearned",
        turns={
            "full": Curve([0.0, 1.0, 2.0], [0.9, 0.92, 0.94], [0.8, 0.82, 0.84], [0.97, 0.98, 0.99]),
            "unlearned": Curve(
                [0.0, 1.0, 2.0, 3.0], [0.1, 0.2, 0.3, 0.4], [0.05, 0.15, 0.25, 0.35], [0.16, 0.26, 0.36, 0.46]
            ),
        },
        shuffled={"full": measured(0.7, 0.6, 0.75), "unlearned": measured(0.08)},
    )

    def test_lines_and_bands_in_per_cent(self) -> None:
        axes = drawn("clues", self.TABLES)
        assert line(axes, "full").get_ydata() == pytest.approx([90, 92, 94])
        assert points(line(axes, "unlearned")) == [(x, pytest.approx(y)) for x, y in enumerate((10, 20, 30, 40))]
        assert band(axes, COLORS["full"]) == corners([0, 1, 2], [80, 82, 84], [97, 98, 99])
        assert band(axes, COLORS["unlearned"]) == corners([0, 1, 2, 3], [5, 15, 25, 35], [16, 26, 36, 46])

    def test_the_control_stands_apart_beside_the_last_turn(self) -> None:
        axes = drawn("clues", self.TABLES)
        (full, at, interval), (unlearned, at_too, none) = bars(axes)
        assert at == (pytest.approx(4 - 0.06), pytest.approx(70))
        assert interval == [[at[0], pytest.approx(60)], [at[0], pytest.approx(75)]]
        assert (at_too, none) == ((pytest.approx(4 + 0.06), pytest.approx(8)), None)
        assert [color(full), color(unlearned)] == [COLORS["full"], COLORS["unlearned"]]
        assert [full.get_marker(), unlearned.get_marker()] == [MARKERS["full"], MARKERS["unlearned"]]
        assert across(axes, at=3.5, vertical=True)
        assert ticks(axes.xaxis) == [(0, "0"), (1, "1"), (2, "2"), (3, "3"), (4, "another\nauthor's")]

    def test_without_the_control(self) -> None:
        axes = drawn("clues", made("full", turns={"full": self.TABLES.turns["full"]}))
        assert not axes.containers
        assert ticks(axes.xaxis) == [(0, "0"), (1, "1"), (2, "2")]


class TestProbe:
    TABLES = made(
        "retain",
        "unlearned",
        probe={
            "retain": Curve([0.0, 8.0, 16.0], [0.2, 0.25, 0.3], [0.1, 0.15, 0.2], [0.31, 0.36, 0.41]),
            "unlearned": Curve([0.0, 8.0, 16.0], [0.4, 0.5, 0.62], [NAN] * 3, [NAN] * 3),
            "control: shuffled labels": Curve(
                [0.0, 8.0, 16.0], [0.16, 0.17, 0.18], [0.1, 0.11, 0.12], [0.21, 0.22, 0.23]
            ),
            "control: candidates only": Curve([0.0], [0.24], [0.14], [0.34]),
        },
        chance=1 / 6,
    )

    def test_lines_and_bands_in_per_cent(self) -> None:
        axes = drawn("probe", self.TABLES)
        expected = {"retain": [20, 25, 30], "unlearned": [40, 50, 62], "shuffled labels": [16, 17, 18]}
        for name, y in expected.items():
            curve = line(axes, name)
            assert points(curve) == [(x, pytest.approx(value)) for x, value in zip((0, 8, 16), y, strict=True)]
            assert curve.get_linestyle() == ("--" if name == "shuffled labels" else "-")
        assert [color(line(axes, arm)) for arm in ("retain", "unlearned")] == [COLORS["retain"], COLORS["unlearned"]]
        assert band(axes, COLORS["retain"]) == corners([0, 8, 16], [10, 15, 20], [31, 36, 41])
        assert band(axes, color(line(axes, "shuffled labels"))) == corners([0, 8, 16], [10, 11, 12], [21, 22, 23])
        assert len(axes.collections) == 2, "no band without an interval"

    def test_what_has_no_layer_goes_from_edge_to_edge(self) -> None:
        axes = drawn("probe", self.TABLES)
        assert across(axes, at=24, vertical=False).get_label() == "candidates only"
        assert across(axes, at=100 * self.TABLES.chance, vertical=False).get_label() == "chance"
        assert legend(axes) == ["retain", "unlearned", "shuffled labels", "candidates only", "chance"]

    def test_an_unknown_chance_is_not_drawn(self) -> None:
        axes = drawn("probe", made("retain", probe={"retain": self.TABLES.probe["retain"]}))
        assert [each.get_label() for each in axes.lines] == ["retain"]

    def test_one_layer_alone_is_a_point_with_its_interval(self) -> None:
        axes = drawn("probe", made("unlearned", probe={"unlearned": Curve([16.0], [0.62], [0.5], [0.75])}))
        assert points(line(axes, "unlearned")) == [(16, 62)]
        [(_, _, interval)] = bars(axes)
        assert interval == [[16, 50], [16, 75]]

    def test_the_axis_begins_at_zero(self) -> None:
        assert drawn("probe", self.TABLES).get_ylim()[0] == 0


class TestRelearning:
    TABLES = made(
        "retain",
        "mine",
        "other",
        relearn={
            "mine": {
                "recovery_delta": 7.6,
                "recovery_delta_low": 3.0,
                "recovery_delta_high": 12.5,
                "retain_recovery_delta": 0.8,
                "retain_recovery_delta_low": -0.5,
                "retain_recovery_delta_high": 2.1,
                "excess": 6.8,
                "excess_low": 2.2,
                "excess_high": 11.3,
            },
            "other": {
                "recovery_delta": -1.5,
                "retain_recovery_delta": 0.9,
                "excess": -2.3,
                "excess_low": -4.0,
                "excess_high": NAN,
            },
        },
    )

    def test_points_and_intervals(self) -> None:
        axes = drawn("relearn", self.TABLES)
        found = [(place, interval and [x for x, _ in interval]) for _, place, interval in bars(axes)]
        assert found == [
            ((7.6, 0), pytest.approx([3.0, 12.5])),
            ((0.8, 1), pytest.approx([-0.5, 2.1])),
            ((6.8, 2), pytest.approx([2.2, 11.3])),
            ((-1.5, 3), None),
            ((-2.3, 4), None),
        ]
        labels = ["mine", "retain", "excess of mine", "other", "excess of other"]
        assert ticks(axes.yaxis) == list(enumerate(labels))
        assert across(axes, at=0, vertical=True)
        bottom, top = axes.get_ylim()
        assert bottom > 4
        assert top < 0

    def test_colors(self) -> None:
        mine, retain, excess, other, _ = (color(artist) for artist, _, _ in bars(drawn("relearn", self.TABLES)))
        assert retain == COLORS["retain"]
        assert len({mine, retain, excess, other}) == 4


class TestTradeOff:
    RUNS = (
        {"run": "one", "forget_quality": 0.01, "model_utility": 0.51, "leak_rate": 0.35},
        {"run": "two", "forget_quality": 0.1, "model_utility": 0.42, "leak_rate": 0.25},
        {"run": "three", "forget_quality": 1e-40, "model_utility": 0.63},
        {"run": "four", "forget_quality": None, "model_utility": 0.33},
    )
    TABLES = made(
        "base",
        "full",
        "retain",
        "unlearned",
        row_forget_quality={"full": measured(1e-50), "unlearned": measured(0.001), "base": measured(NAN)},
        row_model_utility={
            "base": measured(0.2),
            "full": measured(0.7, 0.6, 0.8),
            "retain": measured(0.69, 0.59, 0.79),
            "unlearned": measured(0.55, 0.45, 0.65),
        },
        row_novel_recall={
            "full": measured(0.9, 0.85, 0.97),
            "retain": measured(0.04, 0.01, 0.08),
            "unlearned": measured(0.3, 0.2, 0.45),
        },
        sweep={"runs": list(RUNS), "selected": "two"},
    )

    @staticmethod
    def scattered(axes: Any) -> dict[str, list[list[float]]]:
        return {
            each.get_label(): np.ma.asarray(each.get_offsets()).filled(NAN).tolist()
            for each in axes.collections
            if isinstance(each, PathCollection)
        }

    def test_runs_the_selected_one_and_the_arms(self) -> None:
        axes = drawn("trade-off", self.TABLES)
        found = self.scattered(axes)
        assert found.pop("3 runs of the sweep") == [
            pytest.approx([-2, 0.51]),
            pytest.approx([-1, 0.42]),
            pytest.approx([-30, 0.63]),  # below 1e-30: drawn there, as the caption says
            pytest.approx([NAN, NAN], nan_ok=True),  # without a p value, and not counted
        ]
        assert found == {
            "selected": [pytest.approx([-1, 0.42])],
            "full": [pytest.approx([-30, 0.7])],
            "retain": [pytest.approx([0, 0.69])],  # against itself
            "unlearned": [pytest.approx([-3, 0.55])],
        }
        assert across(axes, at=math.log10(0.05), vertical=True)
        shades = {each.get_label(): to_hex(each.get_facecolor()[0]).upper() for each in axes.collections[2:]}
        assert shades == {arm: COLORS[arm] for arm in ("full", "retain", "unlearned")}

    def test_a_utility_without_a_value_is_neither_drawn_nor_named(self) -> None:
        tables = made(
            "unlearned",
            row_forget_quality={"unlearned": measured(0.2)},
            row_model_utility={"unlearned": measured(NAN)},
        )
        axes = drawn("trade-off", tables)
        assert not axes.collections
        assert not legend(axes)

    def test_the_caption_says_where_p_is_clamped(self) -> None:
        said = " Values of p below 1e-30 are drawn at 1e-30."
        assert figures._clamped(self.TABLES, "trade-off") == said
        assert figures._clamped(self.TABLES, "overview") == ""
        near = made("unlearned", row_forget_quality={"unlearned": measured(1e-30)})
        assert figures._clamped(near, "trade-off") == ""

    def test_runs_and_arms_against_leaks(self) -> None:
        axes = drawn("against-leaks", self.TABLES)
        assert self.scattered(axes) == {"runs of the sweep": [pytest.approx([-2, 35]), pytest.approx([-1, 25])]}
        found = {color(artist): (place, interval) for artist, place, interval in bars(axes)}
        expected = {"full": (-30, 90, 85, 97), "retain": (0, 4, 1, 8), "unlearned": (-3, 30, 20, 45)}
        assert found == {
            COLORS[arm]: (
                (pytest.approx(x), pytest.approx(y)),
                [[pytest.approx(x), pytest.approx(low)], [pytest.approx(x), pytest.approx(high)]],
            )
            for arm, (x, y, low, high) in expected.items()
        }
        assert across(axes, at=math.log10(0.05), vertical=True)

    def test_a_leak_without_an_interval_or_a_value(self) -> None:
        tables = made(
            "retain",
            "unlearned",
            "other",
            row_forget_quality={"unlearned": measured(0.2), "other": measured(0.3)},
            row_novel_recall={"retain": measured(0.1), "unlearned": measured(0.2), "other": measured(NAN, 0.1, 0.2)},
        )
        axes = drawn("against-leaks", tables)
        assert [(place, interval) for _, place, interval in bars(axes)] == [
            ((0, pytest.approx(10)), None),
            ((pytest.approx(math.log10(0.2)), pytest.approx(20)), None),
        ]
        assert legend(axes) == ["retain", "unlearned"]

    def test_one_arm_alone_says_nothing_about_the_relation(self) -> None:
        cells = {"row_forget_quality": {"unlearned": measured(0.2)}, "row_novel_recall": {"unlearned": measured(0.3)}}
        assert "against-leaks" not in figures.plots(made("unlearned", **cells))


def everything() -> Tables:
    """Tables for which every figure is drawn."""
    parts = {name: getattr(TestTradeOff.TABLES, name) for name in ("sweep",)}
    rows = {f"row_{each.key}": each.cells for each in (*TestTradeOff.TABLES.main, *TestOverview.TABLES.main[3:])}
    heat = TestHeatMaps.tables("tofu_novel_recall")
    return made(
        *("base", "full", "retain", "unlearned", "mine", "other"),
        ratios=dict(TestTruthRatios.RATIOS),
        by_family=heat.by_family,
        leak_at_k=dict(TestLeakAtK.CURVES),
        turns=TestTurns.TABLES.turns,
        shuffled=TestTurns.TABLES.shuffled,
        probe=TestProbe.TABLES.probe,
        chance=TestProbe.TABLES.chance,
        relearn=TestRelearning.TABLES.relearn,
        **parts,
        **rows,
    )


def test_every_figure_is_looked_into_here() -> None:
    assert tuple(figures.plots(everything())) == figures.NAMES
    assert figures.plots(made("unlearned")) == {}


@pytest.mark.parametrize("name", figures.NAMES)
def test_nothing_lies_outside_the_axes(name: str) -> None:
    axes = drawn(name, everything())
    place = extent(axes)
    assert len(place) > 1
    for limits, values in ((axes.get_xlim(), place[:, 0]), (axes.get_ylim(), place[:, 1])):
        assert min(limits) <= values.min()
        assert values.max() <= max(limits)


def test_roles_keep_their_color_and_no_two_arms_look_the_same() -> None:
    arms = ("base", "full", "retain", "unlearned", "b", "c", "d", "e")
    looks = drawing.looks(arms)
    assert {arm: looks[arm].color.upper() for arm in COLORS} == COLORS
    assert {arm: looks[arm].marker for arm in MARKERS} == MARKERS
    assert len(set(looks.values())) == len(arms)


def test_a_long_name_is_cut_and_hides_nothing() -> None:
    assert drawing.short("n" * 24) == "n" * 24
    assert drawing.short("n" * 25) == "n" * 23 + "…"
    assert "‮" not in drawing.short("a‮b")


def test_rendered_figures_have_the_data_in_all_three_forms() -> None:
    [drawing] = figures.draw(
        made("unlearned", leak_at_k={"unlearned": Curve([1.0, 2.0], [0.2, 0.3], [0.1, 0.2], [0.3, 0.4])})
    )
    assert (drawing.name, drawing.title) == ("leak-at-k", "Asking again: leak@k")
    for form in (drawing.inline, drawing.svg):
        assert "at least one leaks, %" in form
    assert "#1b1c1d" not in drawing.inline
    assert "currentColor" in drawing.inline
    assert drawing.png.startswith(b"\x89PNG")
