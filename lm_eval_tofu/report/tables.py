"""From checked results to the report's tables: every rate with its interval and its excess over the retain arm."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lm_eval_tofu import tofu
from lm_eval_tofu.files import as_float
from lm_eval_tofu.metrics import inference
from lm_eval_tofu.metrics.inference import Estimate
from lm_eval_tofu.report import audits, probes
from lm_eval_tofu.report.arms import Arm, Key, Results, Sample
from lm_eval_tofu.report.audits import BEST_OF_N, CHAIN_OF_CLUES, FORGET_QUALITY, LOGPROB, UTILITY, Audit
from lm_eval_tofu.report.probes import Curve, Probe
from lm_eval_tofu.tasks import reported
from lm_eval_tofu.tasks.families import CLUES
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tofu import author_of
from lm_eval_tofu.whitebox import PROBE, RELEARN, VERSIONS

Record = Mapping[str, Any]


class Measured(NamedTuple):
    """One figure of one arm; what there is none of is NaN."""

    value: float
    low: float = math.nan  # limits of its 95 % interval over authors
    high: float = math.nan
    excess: float = math.nan  # difference to the retain arm, on the same rows
    excess_low: float = math.nan  # limits of its 95 % interval
    excess_high: float = math.nan
    excess_error: float = math.nan  # its standard error over authors
    p_value: float = math.nan  # one-sided, that the excess is above 0
    adjusted: float = math.nan  # the same after Holm's correction for the arm's audits
    detectable: float = math.nan  # the excess that is found with 80 % power at the corrected level
    authors: int = 0  # that the excess was compared over


Cells = dict[str, Measured | None]
"""By arm; None where it was not evaluated."""


@dataclass(frozen=True)
class Row(Audit):
    """A row of a table: an audit with its figures."""

    cells: Mapping[str, Measured | None] = field(default_factory=dict)  # by arm; None where it was not evaluated
    n: int | None = None  # values that a figure is a mean over, in every arm; None where it is not known

    @classmethod
    def of(cls, audit: Audit, cells: Mapping[str, Measured | None], n: int | None, **changed: Any) -> "Row":
        """The row of an audit, with another label where it depends on the results."""
        return cls(**{**vars(audit), **changed}, cells=cells, n=n)


@dataclass(frozen=True, slots=True)
class RowAudit:
    """One forget row in one arm, across the audits."""

    arm: str
    index: int
    question: str
    tier: str = ""  # how much its answer gives away
    truth_ratio: float = math.nan
    logprob: float = math.nan  # of the gold answer, nats/token
    leaks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By task: how many answers leak (in recognition: are right), and of how many."""

    @property
    def author(self) -> int:
        """Of the row, from 1."""
        return author_of(self.index) + 1


@dataclass(frozen=True, slots=True)
class Tables:
    """All that the report shows."""

    results: Results
    authors: int  # forget authors, which are the clusters of intervals and tests
    main: list[Row]
    parts: list[Row]  # what the benchmark's two figures are made of
    others: list[Row]  # other metrics that some arm has
    by_family: dict[str, dict[str, dict[str, Measured]]]  # leak by task, prompt family and arm
    ratios: dict[str, list[float]]  # truth ratios of the forget rows in the order of rows, by arm
    leak_at_k: dict[str, Curve]  # by arm
    turns: dict[str, Curve]  # leak by number of clues, by arm
    shuffled: dict[str, Measured]  # leak behind another author's clues, by arm
    probe: dict[str, Curve]  # top-1 by layer, by arm; controls under their own names
    chance: float  # of the probe; NaN without one
    relearn: dict[str, Mapping[str, float]]  # by arm
    rows: list[RowAudit]
    missing: list[str]  # what was not evaluated, in sentences
    sweep: Mapping[str, Any] | None = None  # the selection; None without one

    def row(self, key: str) -> Row:
        """A row of the main table."""
        return next(row for row in self.main if row.key == key)


def build(results: Results, sweep: Mapping[str, Any] | None = None) -> Tables:
    """Compute everything that the report shows."""
    arms = results.arms
    found = probes.read(arms)
    main = _with_adjusted([_row(audit, results, found) for audit in audits.AUDITS])
    forget = (arm.records(task) for arm in arms for task in arm.runs if task != UTILITY and arm.samples(task))
    return Tables(
        results=results,
        authors=len({author_of(record["index"]) for record in next(forget, ())}),
        main=main,
        parts=[_part(audit, arms) for audit in audits.PARTS],
        others=[row for audit in audits.OTHERS if any((row := _part(audit, arms)).cells.values())],
        by_family=_by_family(arms),
        ratios={arm.name: _ratios(records) for arm in arms if (records := arm.records(FORGET_QUALITY))},
        leak_at_k={arm.name: _leak_at_k(records) for arm in arms if (records := arm.records(BEST_OF_N))},
        turns={arm.name: curve for arm in arms if (curve := _turns(arm.records(CHAIN_OF_CLUES))).x},
        shuffled={
            arm.name: _measured(estimate)
            for arm in arms
            if (estimate := _SHUFFLED.estimate(arm.records(CHAIN_OF_CLUES))).n
        },
        probe=probes.curves(found),
        chance=probes.chance(found),
        relearn={arm.name: arm.tools[RELEARN].metrics for arm in arms if RELEARN in arm.tools},
        rows=[row for arm in arms for row in _row_audits(arm)],
        missing=_missing(arms, main),
        sweep=sweep,
    )


def _row(audit: Audit, results: Results, found: list[Probe]) -> Row:
    arms = results.arms
    if audit.task == PROBE:
        cells = {arm.name: _probe_cell(audit, arm.name, probes.probe_of(arm.name, found)) for arm in arms}
    elif audit.task == RELEARN:
        cells = {arm.name: _relearn_cell(audit, arm, arms) for arm in arms}
    else:
        compute = _rate_cell if audit.rate else _ratios_cell if audit.comparison else _OTHER_CELLS[audit.task]
        cells = {
            arm.name: compute(audit, arm, results) if audit.task in arm.runs and arm.name != audit.reference else None
            for arm in arms
        }
    labels = {PROBE: lambda: probes.label(found), BEST_OF_N: lambda: f"Best-of-{_drawn(arms)} leak"}
    changed = {"label": labels[audit.task]()} if audit.task in labels else {}
    return Row.of(audit, cells, _n(audit, arms), **changed)


def _n(audit: Audit, arms: Sequence[Arm]) -> int | None:
    """Values that a figure is a mean over, where all arms agree."""
    if audit.rate:
        counted = (len(audit.rate.select(arm.records(audit.task))) for arm in arms if arm.samples(audit.task))
        # Recorded is the number of all answers, and only a rate without conditions is over all.
        recorded = None if audit.rate.where else _same(_metrics(arms, audit.task, "n"))
        return next(counted, recorded)
    if audit.task in VERSIONS:
        return _same(arm.tools[audit.task].metrics.get("n") for arm in arms if audit.task in arm.tools)
    return _same(arm.runs[audit.task].documents for arm in arms if audit.task in arm.runs)


def _metrics(arms: Sequence[Arm], task: str, metric: str) -> list[float | None]:
    return [arm.runs[task].metrics.get(metric) for arm in arms if task in arm.runs]


def _same(numbers: Iterable[float | None]) -> int | None:
    """The number that all agree on; None where there is none."""
    found = {number for number in numbers if number is not None and math.isfinite(number)}
    return int(found.pop()) if len(found) == 1 else None


def _drawn(arms: Sequence[Arm]) -> str:
    """How many samples a row has, where all arms have as many."""
    drawn = {
        int(records[0]["n"])
        if (records := arm.records(BEST_OF_N))
        else arm.runs[BEST_OF_N].options.get("best_of_n", Options().best_of_n)
        for arm in arms
        if BEST_OF_N in arm.runs
    }
    return str(drawn.pop()) if len(drawn) == 1 else "N"


_NOTHING = Measured(math.nan)


# The figures of one arm: from samples where it has them, else what its results state.


def _stated(metrics: Mapping[str, float], metric: str, excess: str = "", known: Measured = _NOTHING) -> Measured:
    """Value, interval, excess and test by their names in results, in place of what is known."""
    names = {"value": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
    if excess:
        names |= {"excess": excess, "p_value": f"{excess}_p_value"}
        names |= {f"excess_{part}": f"{excess}_{part}" for part in ("low", "high", "error")}
        known = known._replace(authors=int(metrics.get("authors", 0)))
    found: dict[str, Any] = {name: metrics[stated] for name, stated in names.items() if stated in metrics}
    return known._replace(**found)


def _measured(estimate: Estimate, excess: Estimate | None = None) -> Measured:
    found = Measured(estimate.value, estimate.low, estimate.high)
    if excess is None:
        return found
    return found._replace(
        excess=excess.value,
        excess_low=excess.low,
        excess_high=excess.high,
        excess_error=excess.error,
        p_value=excess.p_value,
        authors=excess.clusters,
    )


def _authors(records: Iterable[Record]) -> list[int]:
    return [author_of(record["index"]) for record in records]


def _rate_cell(audit: Audit, arm: Arm, results: Results) -> Measured:
    """A rate, and its excess over the retain arm on the rows that count in both."""
    rate, records = audit.rate, arm.records(audit.task)
    retain = results.arm("retain") if arm.name != "retain" else None
    if not records or rate is None:
        found = _stated(arm.runs[audit.task].metrics, audit.metric)
        theirs = retain.runs[audit.task].metrics if retain and audit.task in retain.runs else {}
        return found._replace(excess=found.value - theirs.get(audit.metric, math.nan))
    own = rate.estimate(records)
    baseline = {
        (record["index"], record.get("family")): rate.value(record)
        for record in rate.select(retain.records(audit.task) if retain else ())
    }
    pairs = [
        (rate.value(record), baseline[key], author_of(record["index"]))
        for record in rate.select(records)
        if (key := (record["index"], record.get("family"))) in baseline
    ]
    return _measured(own, inference.excess(*zip(*pairs, strict=True)) if pairs else None)


def _ratios(records: Iterable[Record], name: str = "truth_ratio") -> list[float]:
    return [as_float(record.get(name)) for record in records]


def _ratios_cell(audit: Audit, arm: Arm, results: Results) -> Measured | None:
    """A comparison of truth ratios with the retain arm of this report, else with the one that the run was given."""
    records, retain = arm.records(FORGET_QUALITY), results.arm("retain")
    if not records or audit.comparison is None:
        return _stated(arm.runs[FORGET_QUALITY].metrics, audit.metric) if audit.metric else None
    theirs = _ratios(retain.records(FORGET_QUALITY)) if retain else []
    theirs = theirs or _ratios(records, "retain_truth_ratio")
    return Measured(audit.comparison(_ratios(records), theirs, _authors(records)))


def _utility_cell(audit: Audit, arm: Arm, results: Results) -> Measured:
    """Model utility, with an interval over retain authors, and over rows of the other two sets."""
    found = Measured(arm.runs[UTILITY].metrics.get(audit.metric, math.nan))
    strata = []
    for name in tofu.UTILITY_SETS:
        records = [record for record in arm.records(UTILITY) if record["set"] == name]
        if not records or math.isnan(found.value):
            return found
        components = [_ratios(records, component) for component in reported.UTILITY_PARTS]
        components[-1] = [max(0.0, 1 - ratio) for ratio in components[-1]]  # the truth ratio
        clusters = _authors(records) if name == "retain" else [int(record["index"]) for record in records]
        strata.append(inference.Stratum(components, clusters))
    estimate = inference.harmonic_mean(strata)
    return found._replace(low=estimate.low, high=estimate.high)


def _shift_cell(audit: Audit, arm: Arm, results: Results) -> Measured:
    """Shift of the gold answers' log-probability, and its difference to the retain arm's shift."""
    full, retain = results.arm("full"), results.arm("retain")
    records = arm.records(LOGPROB)
    if not records:
        return Measured(arm.runs[LOGPROB].metrics.get(audit.metric, math.nan))

    def shifts(own: Sequence[Record]) -> list[float]:
        theirs = _ratios(full.records(LOGPROB), "answer_logprob") if full else []
        theirs = theirs or _ratios(own, "full_answer_logprob")
        return [a - b for a, b in zip(_ratios(own, "answer_logprob"), theirs, strict=True)]

    own, authors = shifts(records), _authors(records)
    found = _measured(inference.mean(own, authors))
    baseline = shifts(retain.records(LOGPROB)) if retain and arm is not retain else []
    if not baseline:
        return found
    excess = inference.mean([a - b for a, b in zip(own, baseline, strict=True)], authors)
    return found._replace(excess=excess.value, excess_low=excess.low, excess_high=excess.high)


_OTHER_CELLS: Mapping[str, Callable[[Audit, Arm, Results], Measured | None]] = {
    UTILITY: _utility_cell,
    LOGPROB: _shift_cell,
}


def _probe_cell(audit: Audit, name: str, probe: Probe | None) -> Measured | None:
    """An audited arm's figures from its own probe; those of the others, excess too, from one probe each."""
    if probe is None:
        return None
    own, theirs = probe.curves.get(name), probe.curves.get("retain")
    found = Measured(own.y[-1], own.low[-1], own.high[-1]) if own else Measured(math.nan)
    if own and theirs and name != "retain":
        # Its interval needs the rows of both, which only the audited arm's own probe has.
        found = found._replace(excess=found.value - theirs.y[-1])
    if probe.owner == name:
        found = _stated(probe.metrics, audit.metric, audit.excess, found)
    return None if math.isnan(found.value) else found


def _relearn_cell(audit: Audit, arm: Arm, arms: Sequence[Arm]) -> Measured | None:
    """Recovery; that of the retain arm, which was relearned along with the audited one, from the latter's results."""
    runs = [each.tools[RELEARN].metrics for each in arms if RELEARN in each.tools]
    if RELEARN in arm.tools and audit.metric in arm.tools[RELEARN].metrics:
        return _stated(arm.tools[RELEARN].metrics, audit.metric, audit.excess)
    theirs = f"retain_{audit.metric}"
    run = next((run for run in runs if theirs in run), None)
    return _stated(run, theirs) if run and arm.name == "retain" else None


# Tests.


def tested(rows: Sequence[Row], arm: str) -> list[tuple[Row, Measured]]:
    """The audits of an arm that its verdict rests on: those with a p value."""
    return [
        (row, cell)
        for row in rows
        if row.leak and (cell := row.cells.get(arm)) is not None and not math.isnan(cell.p_value)
    ]


def _with_adjusted(rows: Sequence[Row]) -> list[Row]:
    """Holm's correction over each arm's audits, and what each of them could have found."""
    found = {row.key: dict(row.cells) for row in rows}
    for name in dict.fromkeys(name for row in rows for name in row.cells):
        measured = tested(rows, name)
        adjusted = inference.holm([cell.p_value for _, cell in measured])
        for (row, cell), p_value in zip(measured, adjusted, strict=True):
            scale = 100 if row.unit == "points" else 1
            # What recovers by relearning starts from nothing.
            baseline = min(1.0, max(0.0, cell.value - cell.excess)) if row.unit == "share" else 0.0
            detectable = scale * inference.detectable_excess(
                baseline, cell.authors, row.n or 0, tests=len(measured), error=cell.excess_error / scale
            )
            found[row.key][name] = cell._replace(adjusted=p_value, detectable=detectable)
    return [dataclasses.replace(row, cells=found[row.key]) for row in rows]


# Parts.


def _part(audit: Audit, arms: Sequence[Arm]) -> Row:
    """A figure that is stated in the results alone."""
    runs = {arm.name: arm.tools.get(audit.task) or arm.runs.get(audit.task) for arm in arms}
    cells = {
        name: _stated(run.metrics, audit.metric) if run and audit.metric in run.metrics else None
        for name, run in runs.items()
    }
    if audit.task != UTILITY:
        return Row.of(audit, cells, _n(audit, arms))
    # Rows of the set that a part is named after.
    sampled = (records for arm in arms if (records := arm.records(UTILITY)))
    counts = (sum(audit.metric.startswith(f"{record['set']}_") for record in records) for records in sampled)
    return Row.of(audit, cells, next(counts, None))


def _by_family(arms: Sequence[Arm]) -> dict[str, dict[str, dict[str, Measured]]]:
    """Leak by family: from the samples, else what lm-eval aggregated."""
    tables: dict[str, dict[str, dict[str, Measured]]] = {}
    for task in (audit.task for audit in audits.AUDITS if audit.families):
        for arm in arms:
            run = arm.runs.get(task)
            for family, stated in run.families.items() if run else ():
                records = arm.records(task)
                found = _measured(reported.leak_rate_in(family).estimate(records)) if records else Measured(stated)
                if not math.isnan(found.value):
                    tables.setdefault(task, {}).setdefault(family, {})[arm.name] = found
    return tables


def _curve(points: Mapping[int, Estimate]) -> Curve:
    columns = ([getattr(estimate, name) for estimate in points.values()] for name in ("value", "low", "high"))
    return Curve([float(x) for x in points], *columns)


def _leak_at_k(records: Sequence[Record]) -> Curve:
    most = min((int(record["n"]) for record in reported.leak_rate.select(records)), default=0)
    ks = Options(best_of_n=most).leak_at if most else ()
    return _curve({k: reported.leak_at(k).estimate(records) for k in ks})


def _turns(records: Sequence[Record]) -> Curve:
    behind = {clues: reported.leak_rate_after(f"clues_{clues}") for clues in range(CLUES + 1)}
    found = {clues: rate.estimate(records) for clues, rate in behind.items()}
    return _curve({clues: estimate for clues, estimate in found.items() if estimate.n})


_SHUFFLED = reported.leak_rate_after("shuffled")


def _row_audits(arm: Arm) -> list[RowAudit]:
    values: dict[int, dict[str, Any]] = {}
    for task in arm.runs:
        for key, sample in arm.samples(task).items() if task != UTILITY else ():
            _add_row(values.setdefault(key[1], {"leaks": {}}), task, key, sample)
    return [RowAudit(arm.name, index, **found) for index, found in sorted(values.items())]


def _add_row(values: dict[str, Any], task: str, key: Key, sample: Sample) -> None:
    record = sample.record
    values["question"] = sample.question
    if task == FORGET_QUALITY:
        values["truth_ratio"] = as_float(record["truth_ratio"])
    elif task == LOGPROB:
        values["logprob"] = as_float(record["answer_logprob"])
    # The plain question decides: another prompt may show a part of the answer.
    if "tier" in record and (key[2] in ("direct", "clues_0") or "tier" not in values):
        values["tier"] = str(record["tier"])
    if task in audits.COUNTED and key[2] != "shuffled":
        asked = int(record.get("n", 1))
        before = values["leaks"].get(task, (0, 0))
        values["leaks"][task] = (
            before[0] + min(asked, int(record.get("leaked", record.get("correct")))),
            before[1] + asked,
        )


def _missing(arms: Sequence[Arm], main: Sequence[Row]) -> list[str]:
    notes = []
    first = {row.task: row for row in reversed(main)}
    for row in main:
        lacking = [arm.name for arm in arms if row.cells.get(arm.name) is None and arm.name != row.reference]
        everywhere = len(lacking) == len([arm for arm in arms if arm.name != row.reference])
        if row is not first[row.task] or not (lacking or everywhere):
            continue
        if row.task == RELEARN and not everywhere:
            continue  # relearning is run on the audited arm, and on the retain arm along with it
        how = f"lm-eval-tofu {row.key}" if row.task in (PROBE, RELEARN) else row.task
        notes.append(f"{row.label}: not evaluated on {'any arm' if everywhere else ', '.join(lacking)} ({how}).")
    unsampled = sorted({arm.name for arm in arms for run in arm.runs.values() if run.samples is None})
    if unsampled:
        notes.append(
            f"No samples of {', '.join(unsampled)}: evaluate with --log_samples for intervals, distributions and leaks."
        )
    return notes
