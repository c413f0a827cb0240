"""What `lm-eval-tofu probe` wrote: top-1 by layer of every arm that a probe read, and of its controls."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_tofu.files import as_float
from lm_eval_tofu.report.arms import Arm
from lm_eval_tofu.whitebox import PROBE


class Curve(NamedTuple):
    """Points with their intervals, by position: k, clues or layer."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


class Probe(NamedTuple):
    """One arm's probe, which reads other arms along with it."""

    owner: str  # the arm
    curves: dict[str, Curve]  # by arm
    controls: dict[str, Curve]  # by name
    depths: dict[str, int]  # number of the last layer, by arm
    metrics: Mapping[str, float]  # of the owner
    chance: float  # of a right guess


def read(arms: Sequence[Arm]) -> list[Probe]:
    """The probes of all arms that have one; a part that is missing is a gap."""
    return [_read(arm, [each.name for each in arms]) for arm in arms if PROBE in arm.tools]


def curve_of(arm: Arm, name: str) -> Curve | None:
    """The curve of an arm, by its name in the results, in another arm's probe."""
    return _curve(_items(arm, "arms").get(name)) if PROBE in arm.tools else None


def _read(arm: Arm, names: Sequence[str]) -> Probe:
    run = arm.tools[PROBE]
    probe = Probe(arm.name, {}, {}, {}, run.metrics, as_float(run.details.get("chance")))

    def named(name: str) -> str:
        """A probe calls the audited arm by its role."""
        return arm.name if name in ("model", "unlearned") and name not in names else name

    for name, value in _items(arm, "arms").items():
        curve = _curve(value)
        if curve:
            probe.curves[named(name)] = curve
            if isinstance(value.get("depth"), int):
                probe.depths[named(name)] = value["depth"]
    for name, value in _items(arm, "controls").items():
        if name == "shuffled_labels" and isinstance(value, Mapping):
            value = next((each for key, each in value.items() if named(key) == arm.name), None)
        curve = _curve(value)
        if curve:
            probe.controls[f"control: {name.replace('_', ' ')}"] = curve
    return probe


def _items(arm: Arm, key: str) -> Mapping[str, Any]:
    value = arm.tools[PROBE].details.get(key)
    return value if isinstance(value, Mapping) else {}


def _curve(value: Any) -> Curve | None:
    layers = value.get("layers") if isinstance(value, Mapping) else None
    points = [layer for layer in layers if "top1" in layer] if isinstance(layers, list) else []
    columns = ([as_float(point.get(name)) for point in points] for name in ("layer", "top1", "low", "high"))
    return Curve(*columns) if points else None


def curves(probes: Sequence[Probe]) -> dict[str, Curve]:
    """The curves of all arms, from an arm's own probe before others', and of the controls, from the first probe."""
    arms = dict.fromkeys(name for probe in probes for name in probe.curves)
    found = {name: probe.curves[name] for name in arms if (probe := probe_of(name, probes))}
    for probe in reversed(probes):
        found |= probe.controls
    return found


def chance(probes: Sequence[Probe]) -> float:
    """Probability of a right guess; NaN where no probe states it."""
    return next((probe.chance for probe in probes if not math.isnan(probe.chance)), math.nan)


def probe_of(name: str, probes: Sequence[Probe]) -> Probe | None:
    """The probe that an arm's figures are taken from: its own, else the first that reads it."""
    own = next((probe for probe in probes if probe.owner == name), None)
    return own or next((probe for probe in probes if name in probe.curves), None)


def label(probes: Sequence[Probe]) -> str:
    """Which layer the figures are of: not every probe reads the last one."""
    read = {(p.curves[p.owner].x[-1], p.depths[p.owner]) for p in probes if p.owner in p.depths}
    if all(layer == depth for layer, depth in read):
        return "Masked probe, last layer"
    if len(read) > 1:
        return "Masked probe, last layer that was read"
    [(layer, depth)] = read
    return f"Masked probe, layer {layer:.0f} of {depth}"
