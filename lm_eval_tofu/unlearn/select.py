"""Ranks the runs of a sweep and selects one by benchmark metrics alone, before any leak audit.

Selecting the checkpoint that leaks least would report the audit's noise as a strength of the method. Here the
benchmark's two metrics alone decide, and the decision is written down with every run's figures.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.evaluation import BENCHMARK
from lm_eval_tofu.metrics import inference, permutation
from lm_eval_tofu.unlearn import alike, sweep, sweep_config

log = logging.getLogger(__name__)

SELECTION_FILE = "selection.json"
RULE = "rank 1 by forget quality, ties by model utility; a metric that is NaN ranks last"

_ROWS_PER_AUTHOR = 20
_RUNNERS_UP = 5


@dataclass(frozen=True, slots=True)
class Ranked:
    """One run of the sweep in the selection.

    Attributes:
        rank: 1 for the selected one.
        run: Its name.
        point: Its options.
        forget_quality: KS p value.
        ks_statistic: KS distance D from the retain arm.
        p_value: That its D differs from the first run's, from exchanging the two within authors, corrected for the
            number of runs (Holm); None for the first run, and where a truth ratio is no number.
        model_utility: Harmonic mean of the nine components.
        results_sha256: Of the results' file.
        weights: Fingerprint of the checkpoint's weights; None where it is not there any more.
    """

    rank: int
    run: str
    point: Mapping[str, Any]
    forget_quality: float
    ks_statistic: float
    p_value: float | None
    model_utility: float
    results_sha256: str
    weights: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What `selection.json` holds.

    Attributes:
        selected: Name of the run with rank 1.
        checkpoint: Its checkpoint, relative to the sweep's directory.
        rule: How runs were ranked.
        time: When, in UTC.
        blind: Whether no leak figure of any run stood in the sweep's directory.
        audits_seen: Those that did.
        differences: What differs between the runs' evaluations and may explain a difference in figures.
        missing: Runs without results.
        equals: Runs that a paired test cannot distinguish from the first.
        exchanged: What the test exchanged: authors, or rows where there are too few authors.
        runs: All others, by rank.
    """

    selected: str
    checkpoint: str
    rule: str
    time: str
    blind: bool
    audits_seen: list[str]
    differences: list[str]
    missing: list[str]
    equals: list[str]
    exchanged: str
    runs: list[Ranked]


def select(folder: Path, *, not_blind: bool = False, allow_missing: bool = False) -> Selection:
    """Rank the runs of a finished sweep and write `selection.json` into its directory.

    Args:
        folder: The sweep's directory.
        not_blind: Rank although leak audits of its runs lie there; recorded.
        allow_missing: Rank although runs have no results; recorded.

    Raises:
        OptionError: The directory is no sweep's, runs are missing or were not evaluated alike, or the selection would
            not be blind.
    """
    config = sweep_config.load_config(folder)
    audits = sorted(_audits(folder))
    if audits and not not_blind:
        raise OptionError(
            f"{folder} holds results of {audits[0]}: a selection that could have seen leaks is not blind; select "
            "before auditing, or give --not-blind, which is recorded"
        )
    found: dict[str, tuple[sweep_config.Point, Path]] = {}
    missing = []
    for point in config.points:
        name = sweep_config.name_of(point)
        results = folder / "runs" / name / "results"
        if results.is_dir():
            found[name] = (point, results)
        else:
            missing.append(name)
    if not found or (missing and not allow_missing):
        raise OptionError(
            f"{len(missing)} of {len(config.points)} runs have no results, {missing[0]} for one: finish the sweep "
            "(lm-eval-tofu sweep), or give --allow-missing, which is recorded"
        )
    different = alike.check_runs(
        {name: results for name, (_, results) in found.items()},
        {name: folder / "runs" / name / "model" for name in found},
        BENCHMARK,
    )
    metrics = {name: sweep.read_metrics(results) for name, (_, results) in found.items()}
    order = sorted(found, key=lambda name: sweep.rank_key(metrics[name]))
    p_values, exchanged = _told_from_first([found[name][1] for name in order])
    runs = [
        Ranked(
            rank=rank,
            run=name,
            point=found[name][0],
            **metrics[name],
            p_value=p_values[rank - 1],
            results_sha256=hashlib.sha256(files.newest_results(found[name][1]).read_bytes()).hexdigest(),
            weights=_weights(folder / "runs" / name / "model"),
        )
        for rank, name in enumerate(order, start=1)
    ]
    selection = Selection(
        selected=order[0],
        checkpoint=f"runs/{order[0]}/model",
        rule=RULE,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        blind=not audits,
        audits_seen=audits,
        differences=different,
        missing=missing,
        equals=[run.run for run in runs if run.p_value is not None and run.p_value > inference.ALPHA],
        exchanged=exchanged,
        runs=runs,
    )
    files.write_json(folder / SELECTION_FILE, asdict(selection))
    return selection


def _audits(folder: Path) -> set[str]:
    """Names of what else than the benchmark's metrics was evaluated in the sweep's directory."""
    names = set()
    for path in folder.rglob("results_*.json"):
        try:
            names |= json.loads(path.read_text(encoding="utf-8"))["results"].keys()
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise OptionError(f"{path} cannot be read ({error!r}): delete it and evaluate that run again") from error
    return names - set(BENCHMARK)


def _told_from_first(results: Sequence[Path]) -> tuple[list[float | None], str]:
    """For each run, the corrected p value that its D differs from that of the first; and what was exchanged.

    Too few authors leave nothing to exchange. Then rows are, as if they were independent, which tells runs apart too
    easily: those that even this cannot tell apart are equals all the more.
    """
    columns = [_ratios(path) for path in results]
    indices, first, retain = columns[0]
    authors = [index // _ROWS_PER_AUTHOR for index in indices]
    by_author = len(set(authors)) >= inference.MIN_CLUSTERS
    clusters = authors if by_author else indices
    raw: list[float] = []
    for other_indices, ratios, _ in columns[1:]:
        if other_indices != indices:
            raw.append(math.nan)
        else:
            raw.append(permutation.ks_difference_test(first, ratios, retain, clusters).p_value)
    adjusted = iter(inference.holm([p_value for p_value in raw if not math.isnan(p_value)]))
    found: list[float | None] = [None, *(None if math.isnan(p_value) else next(adjusted) for p_value in raw)]
    return found, "authors" if by_author else "rows"


def _ratios(results: Path) -> tuple[list[int], list[float], list[float]]:
    """Rows, truth ratios, and the retain arm's; what is missing is NaN."""
    path = files.samples_files(results, BENCHMARK[0])[-1]
    records = [json.loads(line)["forget_quality"] for line in path.read_text(encoding="utf-8").split("\n") if line]
    records.sort(key=lambda record: record["index"])
    ours, retain = (
        [math.nan if record[key] is None else float(record[key]) for record in records]
        for key in ("truth_ratio", "retain_truth_ratio")
    )
    return [int(record["index"]) for record in records], ours, retain


def _weights(model: Path) -> str | None:
    for name in ("unlearning.json", "training.json"):
        if (model / name).is_file():
            return str(json.loads((model / name).read_text(encoding="utf-8"))["weights"])
    return None


def table(selection: Selection) -> Iterator[str]:
    """The lines that `lm-eval-tofu select` prints: the selected run, its runners-up and its equals."""
    shown = selection.runs[: 1 + _RUNNERS_UP]
    width = max(len(run.run) for run in shown)
    yield f"{'rank':>4}  {'run':{width}}  {'forget quality':>14}  {'D':>6}  {'p, D as first':>13}  {'utility':>7}"
    for run in shown:
        p_value = "-" if run.p_value is None else f"{run.p_value:.3f}"
        name = f"{run.rank:>4}  {run.run:{width}}  {run.forget_quality:>14.4g}"
        yield f"{name}  {run.ks_statistic:>6.3f}  {p_value:>13}  {run.model_utility:>7.4f}"
    yield f"selected: {selection.selected} ({selection.rule})"
    yield from _told_apart(selection)
    for difference in selection.differences:
        yield f"the runs were not evaluated alike: {difference}"
    if not selection.blind:
        yield f"NOT BLIND: results of {', '.join(selection.audits_seen)} were there"
    if selection.missing:
        yield f"{len(selection.missing)} runs had no results and were left out"


def _told_apart(selection: Selection) -> Iterator[str]:
    """Which other runs are as good as the first."""
    others = len(selection.runs) - 1
    if not others:
        return
    if selection.equals:
        yield (
            f"{len(selection.equals)} of the {others} others cannot be distinguished from it by their distance D from "
            f"the retain arm (exchanging {selection.exchanged}, corrected for {others} comparisons, level "
            f"{inference.ALPHA:.0%}): " + ", ".join(selection.equals)
        )
    else:
        yield (
            f"of the {others} others all that were tested can be distinguished from it by their distance D from the "
            "retain arm"
        )
    if selection.exchanged == "rows":
        yield (
            f"there are fewer than {inference.MIN_CLUSTERS} authors: rows were exchanged as if they were independent, "
            "which distinguishes runs too easily, so others may be equals too"
        )
    untested = [run.run for run in selection.runs[1:] if run.p_value is None]
    if untested:
        yield f"{len(untested)} runs have no test, since truth ratios are missing: {', '.join(untested)}"
