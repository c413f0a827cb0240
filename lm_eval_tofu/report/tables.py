"""From checked results to the report's figures: every rate with its interval and its excess over the retain arm."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lm_eval_tofu.metrics import benchmark, inference, rates
from lm_eval_tofu.report.load import DEFAULTS, Arm, Key, Results, Sample, TaskRun, as_float, families
from lm_eval_tofu.tasks.families import CLUES
from lm_eval_tofu.tasks.reported import UTILITY_PARTS
from lm_eval_tofu.tofu import ROWS_PER_AUTHOR, UTILITY_SETS


class Measured(NamedTuple):
    """One figure of one arm.

    Attributes:
        value: The figure.
        low: Lower limit of its 95 % interval over authors; NaN where there is none.
        high: Upper limit.
        excess: Difference to the retain arm.
        excess_low: Lower limit of its 95 % interval, paired by row.
        excess_high: Upper limit of it.
        excess_error: Its standard error over authors.
        p_value: One-sided, that the excess is above 0.
        adjusted: The same after Holm's correction for the arm's audits.
        detectable: The excess that an audit of this size finds with 80 % power, at the corrected level.
        authors: That the excess was compared over.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    excess: float = math.nan
    excess_low: float = math.nan
    excess_high: float = math.nan
    excess_error: float = math.nan
    p_value: float = math.nan
    adjusted: float = math.nan
    detectable: float = math.nan
    authors: int = 0


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        key: Its name in files and anchors.
        label: For the reader.
        help: How to read it, in a sentence.
        unit: `share`, `points` (percentage points), `p`, `nats` or `number`.
        leak: Whether more of it than in the retain arm is knowledge that should be gone.
        cells: By arm; None where the arm was not evaluated.
        n: Number of values that the figure is a mean over, the same for all arms; None where it is unknown.
    """

    key: str
    label: str
    help: str
    unit: str
    leak: bool
    cells: Mapping[str, Measured | None]
    n: int | None = None


class Curve(NamedTuple):
    """Points with their intervals, by position: k, clues or layer."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, slots=True)
class Tables:
    """All that the report shows.

    Attributes:
        results: The arms.
        authors: Forget authors, which are the clusters of intervals and tests.
        main: The published table's rows.
        parts: What the benchmark's two figures are made of.
        by_family: Leak by prompt family, by task: family, then arm.
        ratios: Truth ratios of the forget rows, sorted by row, by arm.
        leak_at_k: By arm.
        turns: Leak by number of clues, by arm.
        shuffled: Leak behind another author's clues, by arm.
        probe: Top-1 by layer, by arm; controls under their own names.
        chance: Of the probe; NaN without one.
        relearn: By arm.
        rows: The row-level table.
        missing: What was not evaluated, in sentences.
        sweep: The selection; None without one.
    """

    results: Results
    authors: int
    main: list[Row]
    parts: list[Row]
    by_family: dict[str, dict[str, dict[str, Measured]]]
    ratios: dict[str, list[float]]
    leak_at_k: dict[str, Curve]
    turns: dict[str, Curve]
    shuffled: dict[str, Measured]
    probe: dict[str, Curve]
    chance: float
    relearn: dict[str, Mapping[str, float]]
    rows: list["RowAudit"]
    missing: list[str]
    sweep: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RowAudit:
    """One forget row in one arm, across the audits.

    Attributes:
        arm: The arm.
        index: The row's number.
        question: Its question.
        tier: How much its answer gives away.
        truth_ratio: R; NaN where not evaluated.
        logprob: Of the gold answer, nats/token.
        leaks: By audit: how many answers leak, and of how many; for recognition, how many choices are right.
    """

    arm: str
    index: int
    question: str
    tier: str = ""
    truth_ratio: float = math.nan
    logprob: float = math.nan
    leaks: dict[str, tuple[int, int]] = field(default_factory=dict)


AUDITS = {
    "tofu_novel_recall": "novel recall",
    "tofu_format_shift": "format shift",
    "tofu_best_of_n": "best of N",
    "tofu_chain_of_clues": "chain of clues",
}
"""The leak audits and their names for readers."""


ROW_AUDITS = {**AUDITS, "tofu_recognition": "recognition"}
"""The columns of the row-level table that count answers."""


class _Values(NamedTuple):
    """Values of documents.

    Attributes:
        values: Shape (n,).
        authors: The author of each.
        documents: Row and prompt family of each, by which two arms are paired.
    """

    values: list[float]
    authors: list[int]
    documents: list[tuple[int, str]]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> "_Values":
        """One value a record."""
        return cls(
            [value(record) for record in records],
            [_author(record) for record in records],
            [(int(record["index"]), str(record.get("family", ""))) for record in records],
        )


def build(results: Results, sweep: Mapping[str, Any] | None = None) -> Tables:
    """Compute everything that the report shows."""
    arms = results.arms
    retain = results.arm("retain")
    full = results.arm("full")
    main = _with_adjusted(_main_rows(arms, retain, full))
    probe, chance = _probe(arms)
    turns, shuffled = _turns(arms)
    return Tables(
        results=results,
        authors=_number_of_authors(arms),
        main=main,
        parts=_parts(arms),
        by_family=_by_family(arms),
        ratios={arm.name: _ratios(run) for arm in arms if (run := _sampled(arm, "tofu_forget_quality"))},
        leak_at_k={arm.name: _leak_at_k(run) for arm in arms if (run := _sampled(arm, "tofu_best_of_n"))},
        turns=turns,
        shuffled=shuffled,
        probe=probe,
        chance=chance,
        relearn={arm.name: arm.relearn for arm in arms if arm.relearn},
        rows=_rows(arms),
        missing=_missing(arms, main),
        sweep=sweep,
    )


def _sampled(arm: Arm | None, task: str) -> TaskRun | None:
    run = arm.runs.get(task) if arm else None
    return run if run and run.samples else None


def _author(record: Mapping[str, Any]) -> int:
    return int(record["index"]) // ROWS_PER_AUTHOR


def _number_of_authors(arms: Sequence[Arm]) -> int:
    runs = (run for arm in arms for run in arm.runs.values() if run.samples and run.task != "tofu_model_utility")
    run = next(runs, None)
    return len({_author(record) for record in run.records()}) if run else 0


# The values of each audit's documents.


def _leaks(run: TaskRun, family: str | None = None) -> _Values:
    """Verdicts on specific rows, of one family or of all."""
    chosen = [
        record
        for record in run.records()
        if record["tier"] == "specific" and (family is None or record["family"] == family)
    ]
    return _Values.of(chosen, _is_leaked)


def _is_leaked(record: Mapping[str, Any]) -> float:
    return float(record["leaked"] > 0)


def _final_turn(run: TaskRun) -> _Values:
    return _behind(run, f"clues_{CLUES}")


def _behind(run: TaskRun, family: str) -> _Values:
    """Verdicts behind one number of clues, on the rows that are specific behind every number, as the task has it."""
    records = run.records()
    columns = (
        [r["index"] for r in records],
        [r["family"] for r in records],
        [r["tier"] == "specific" for r in records],
    )
    common = rates.rows_in_all(*columns)
    return _Values.of([each for each in records if each["family"] == family and each["index"] in common], _is_leaked)


def _correct(run: TaskRun) -> _Values:
    return _Values.of(run.records(), lambda record: float(record["correct"]))


def _logprobs(run: TaskRun) -> _Values:
    return _Values.of(run.records(), lambda record: as_float(record["answer_logprob"]))


def _rate(own: _Values, retain: _Values | None = None) -> Measured:
    """A rate with its interval, and its excess over the retain arm on the rows that count in both."""
    estimate = inference.rate(own.values, own.authors)
    measured = Measured(estimate.value, estimate.low, estimate.high)
    if retain is None:
        return measured
    theirs = dict(zip(retain.documents, retain.values, strict=True))
    pairs = [
        (value, theirs[document], author) for value, author, document in zip(*own, strict=True) if document in theirs
    ]
    if not pairs:
        return measured
    excess = inference.excess(*zip(*pairs, strict=True))
    return measured._replace(
        excess=excess.value,
        excess_low=excess.low,
        excess_high=excess.high,
        excess_error=excess.error,
        p_value=excess.p_value,
        authors=excess.clusters,
    )


def _rate_cells(
    arms: Sequence[Arm], retain: Arm | None, task: str, metric: str, values: Callable[[TaskRun], _Values]
) -> dict[str, Measured | None]:
    cells: dict[str, Measured | None] = {}
    theirs = _sampled(retain, task)
    for arm in arms:
        run = arm.runs.get(task)
        if run is None:
            cells[arm.name] = None
        elif run.samples:
            cells[arm.name] = _rate(values(run), values(theirs) if theirs and arm is not retain else None)
        else:
            # Without samples there are lm-eval's figures, and no way to an interval of the difference.
            get = run.metrics.get
            value = get(metric, math.nan)
            base = retain.runs[task].metrics.get(metric, math.nan) if retain and task in retain.runs else math.nan
            excess = value - base if arm is not retain else math.nan
            cells[arm.name] = Measured(
                value, get(f"{metric}_low", math.nan), get(f"{metric}_high", math.nan), excess=excess
            )
    return cells


def _main_rows(arms: Sequence[Arm], retain: Arm | None, full: Arm | None) -> list[Row]:
    def leak(key: str, label: str, text: str, task: str, metric: str, values: Callable[[TaskRun], _Values]) -> Row:
        counted = (len(values(run).values) for arm in arms if (run := _sampled(arm, task)))
        # Recorded is the number of all answers, and only recognition's rate is over all.
        recorded = _recorded(arms, task, "n") if task == "tofu_recognition" else None
        return Row(
            key, label, text, "share", True, _rate_cells(arms, retain, task, metric, values), next(counted, recorded)
        )

    quality, distance, paired = _forget_quality(arms, retain)
    return [
        Row(
            "forget_quality",
            "Forget quality",
            "p value of the KS test against the retain arm; near 0: the two can be told apart",
            "p",
            False,
            quality,
            _documents(arms, "tofu_forget_quality"),
        ),
        Row(
            "ks_statistic",
            "KS distance D",
            "largest distance between the truth-ratio distributions of this arm and the retain arm; 0 is best",
            "number",
            False,
            distance,
            _documents(arms, "tofu_forget_quality"),
        ),
        Row(
            "forget_quality_paired",
            "D, paired p value",
            "p value of D from exchanging this and the retain arm within authors; near 0: the two can be told apart",
            "p",
            False,
            paired,
            _documents(arms, "tofu_forget_quality"),
        ),
        Row(
            "model_utility",
            "Model utility",
            "harmonic mean of nine figures on what should have stayed; near the full arm's is best",
            "number",
            False,
            {arm.name: _utility(arm) for arm in arms},
            _documents(arms, "tofu_model_utility"),
        ),
        leak(
            "novel_recall",
            "Novel-recall leak",
            "answers that give a forgotten fact away, asked for in several ways",
            "tofu_novel_recall",
            "leak_rate",
            _leaks,
        ),
        leak(
            "format_shift",
            "Format-shift leak",
            "the same when the answer is to have a given format",
            "tofu_format_shift",
            "leak_rate",
            _leaks,
        ),
        leak(
            "best_of_n",
            f"Best-of-{_drawn(arms)} leak",
            "rows of which at least one of N sampled answers leaks",
            "tofu_best_of_n",
            "prompt_leak",
            _leaks,
        ),
        leak(
            "chain_of_clues",
            "Chain of clues, final turn",
            f"answers that leak after {CLUES} clues that give nothing away",
            "tofu_chain_of_clues",
            "leak_rate",
            _final_turn,
        ),
        leak(
            "recognition",
            "Recognition",
            "right choices among six options, one in six by chance",
            "tofu_recognition",
            "recognition",
            _correct,
        ),
        Row(
            "probe",
            _probe_label(arms),
            "top-1 of a probe that reads the answer from the hidden state; one in six by chance",
            "share",
            True,
            _probe_cells(arms),
            _same(arm.probe["metrics"].get("n") for arm in arms if arm.probe),
        ),
        Row(
            "logprob_shift",
            "Answer log-likelihood shift",
            "gold answers' log-probability, this arm less the full arm, nats/token; 0: nothing moved",
            "nats",
            False,
            _shift_cells(arms, retain, full),
            _documents(arms, "tofu_answer_logprob"),
        ),
        Row(
            "relearn",
            "Relearning, recovery",
            "leak on held-out forget authors after fine-tuning on the others, less before, percentage points",
            "points",
            True,
            {arm.name: _relearn_cell(arm, arms) for arm in arms},
            _same(arm.relearn.get("n") for arm in arms if arm.relearn),
        ),
    ]


def _documents(arms: Sequence[Arm], task: str) -> int | None:
    return _same(arm.runs[task].documents for arm in arms if task in arm.runs)


def _recorded(arms: Sequence[Arm], task: str, metric: str) -> int | None:
    return _same(arm.runs[task].metrics.get(metric) for arm in arms if task in arm.runs)


def _same(numbers: Iterable[float | None]) -> int | None:
    """The number that all agree on; None where there is none."""
    found = {number for number in numbers if number is not None and math.isfinite(number)}
    return int(found.pop()) if len(found) == 1 else None


def _drawn(arms: Sequence[Arm]) -> str:
    """How many samples a row has, where all arms have as many."""
    task = "tofu_best_of_n"
    runs = [arm.runs[task] for arm in arms if task in arm.runs]
    drawn = {
        int(run.records()[0]["n"]) if run.samples else run.options.get("best_of_n", DEFAULTS.best_of_n) for run in runs
    }
    return str(drawn.pop()) if len(drawn) == 1 else "N"


def _ratios(run: TaskRun) -> list[float]:
    return [as_float(record["truth_ratio"]) for record in run.records()]


def _forget_quality(arms: Sequence[Arm], retain: Arm | None) -> tuple[dict[str, Measured | None], ...]:
    """The KS test's p value, D and its paired p value.

    Against the retain arm of this report, else against the one that the run was given.
    """
    found: tuple[dict[str, Measured | None], ...] = ({}, {}, {})
    reference = _sampled(retain, "tofu_forget_quality")
    for arm in arms:
        run = arm.runs.get("tofu_forget_quality")
        cells: list[Measured | None] = [None, None, None]
        if run is not None and arm is not retain and not run.samples:
            cells[:2] = (Measured(run.metrics.get(name, math.nan)) for name in ("forget_quality", "ks_statistic"))
        elif run is not None and arm is not retain:
            records = run.records()
            ours = _ratios(run)
            theirs = (
                _ratios(reference) if reference else [as_float(record.get("retain_truth_ratio")) for record in records]
            )
            test = benchmark.forget_quality(ours, theirs)
            paired = inference.exchange_distance(ours, theirs, [_author(record) for record in records])
            cells = [Measured(value) for value in (test.p_value, test.statistic, paired.p_value)]
        for column, cell in zip(found, cells, strict=True):
            column[arm.name] = cell
    return found


def _utility(arm: Arm) -> Measured | None:
    """Model utility, with an interval over retain authors, and over rows of the other two sets."""
    run = arm.runs.get("tofu_model_utility")
    if run is None:
        return None
    value = run.metrics.get("model_utility", math.nan)
    if not run.samples or math.isnan(value):
        return Measured(value)
    strata = []
    for name in UTILITY_SETS:
        records = [record for record in run.records() if record["set"] == name]
        if not records:
            return Measured(value)
        components = [[as_float(record[component]) for record in records] for component in UTILITY_PARTS]
        components[-1] = [max(0.0, 1 - ratio) for ratio in components[-1]]  # the truth ratio
        clusters = [_author(record) if name == "retain" else int(record["index"]) for record in records]
        strata.append(inference.Stratum(components, clusters))
    estimate = inference.harmonic_mean(strata)
    return Measured(value, estimate.low, estimate.high)


def _shift_cells(arms: Sequence[Arm], retain: Arm | None, full: Arm | None) -> dict[str, Measured | None]:
    task = "tofu_answer_logprob"
    reference, baseline = _sampled(full, task), _sampled(retain, task)

    def shifts(run: TaskRun) -> _Values:
        own = _logprobs(run)
        if reference:
            theirs = _logprobs(reference).values
        else:
            theirs = [as_float(record.get("full_answer_logprob")) for record in run.records()]
        return own._replace(values=[a - b for a, b in zip(own.values, theirs, strict=True)])

    cells: dict[str, Measured | None] = {}
    for arm in arms:
        run = arm.runs.get(task)
        if run is None or arm is full:
            cells[arm.name] = None
        elif run.samples:
            own = shifts(run)
            estimate = inference.mean(own.values, own.authors)
            cells[arm.name] = Measured(estimate.value, estimate.low, estimate.high)
            if baseline and arm is not retain:
                differences = [a - b for a, b in zip(own.values, shifts(baseline).values, strict=True)]
                excess = inference.mean(differences, own.authors)
                cells[arm.name] = Measured(*estimate[:3], *excess[:3])
        else:
            cells[arm.name] = Measured(run.metrics.get("answer_logprob_shift", math.nan))
    return cells


# What other tools wrote in lm-eval's form; a part that is missing is a gap.


def _layers(value: Any) -> Curve | None:
    entries = value.get("layers") if isinstance(value, Mapping) and "layers" in value else value
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return None
    points = [entry for entry in entries if isinstance(entry, Mapping) and "top1" in entry]
    if not points:
        return None
    columns = [
        [as_float(point.get("layer", number)) for number, point in enumerate(points)],
        *([as_float(point.get(name)) for point in points] for name in ("top1", "low", "high")),
    ]
    return Curve(*columns)


class _Probe(NamedTuple):
    """One arm's probe, which reads other arms along with it.

    Attributes:
        owner: The arm.
        curves: By arm.
        controls: By name.
        depths: Number of the last layer, by arm, where it is stated.
        metrics: Its figures of the owner.
        chance: Of a right guess.
    """

    owner: str
    curves: dict[str, Curve]
    controls: dict[str, Curve]
    depths: dict[str, int]
    metrics: Mapping[str, float]
    chance: float


def _probes(arms: Sequence[Arm]) -> list[_Probe]:
    return [_read_probe(arm, arm.probe, arms) for arm in arms if arm.probe]


def _read_probe(arm: Arm, content: Mapping[str, Any], arms: Sequence[Arm]) -> _Probe:
    probe = _Probe(arm.name, {}, {}, {}, content["metrics"], as_float(content.get("chance")))
    for name, value in _items(content.get("arms")):
        curve, named = _layers(value), _named(name, arm, arms)
        if curve:
            probe.curves[named] = curve
            if isinstance(value, Mapping) and isinstance(value.get("depth"), int):
                probe.depths[named] = value["depth"]
    for name, value in _items(content.get("controls")):
        if name == "shuffled_labels" and isinstance(value, Mapping) and "layers" not in value:
            of_arm = {key: _layers(each) for key, each in value.items()}
            own_name = next((key for key in of_arm if _named(key, arm, arms) == arm.name), None)
            curve = of_arm[own_name] if own_name else next(iter(of_arm.values()), None)
        else:
            curve = _layers(value)
        if curve:
            probe.controls[f"control: {name.replace('_', ' ')}"] = curve
    return probe


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, Mapping) else ()


def _probe(arms: Sequence[Arm]) -> tuple[dict[str, Curve], float]:
    """Curves of all arms and controls, and chance: an arm's own probe before others', then the first one."""
    probes = _probes(arms)
    curves = {
        name: probe.curves[name]
        for name in dict.fromkeys(name for probe in probes for name in probe.curves)
        for probe in [_probe_of(name, probes)]
        if probe
    }
    controls: dict[str, Curve] = {}
    for probe in probes:
        controls = {**probe.controls, **controls}
    chance = next((probe.chance for probe in probes if not math.isnan(probe.chance)), math.nan)
    return {**curves, **controls}, chance


def _probe_of(name: str, probes: Sequence[_Probe]) -> _Probe | None:
    """The probe that an arm's figures are taken from: its own, else the first that reads it."""
    own = next((probe for probe in probes if probe.owner == name), None)
    return own or next((probe for probe in probes if name in probe.curves), None)


def _probe_label(arms: Sequence[Arm]) -> str:
    """Which layer the figures are of: not every probe reads the last one."""
    read = {
        (probe.curves[probe.owner].x[-1], probe.depths[probe.owner])
        for probe in _probes(arms)
        if probe.owner in probe.depths
    }
    if all(layer == depth for layer, depth in read):
        return "Masked probe, last layer"
    if len(read) > 1:
        return "Masked probe, last layer that was read"
    [(layer, depth)] = read
    return f"Masked probe, layer {layer:.0f} of {depth}"


def _named(name: str, arm: Arm, arms: Sequence[Arm]) -> str:
    """A probe reads several arms at once, and calls the audited one by its role."""
    return arm.name if name in ("model", "unlearned") and name not in {each.name for each in arms} else name


def _probe_cells(arms: Sequence[Arm]) -> dict[str, Measured | None]:
    """An audited arm's figures from its own probe; those of the others, excess too, from one probe each."""
    probes = _probes(arms)
    cells: dict[str, Measured | None] = {}
    for arm in arms:
        probe = _probe_of(arm.name, probes)
        cells[arm.name] = _probe_cell(arm.name, probe) if probe else None
    return cells


_PROBE_METRICS = {
    "value": "top1",
    "low": "top1_low",
    "high": "top1_high",
    "excess": "top1_excess",
    "excess_low": "top1_excess_low",
    "excess_high": "top1_excess_high",
    "excess_error": "top1_excess_error",
    "p_value": "top1_excess_p_value",
}


def _probe_cell(name: str, probe: _Probe) -> Measured | None:
    own, theirs = probe.curves.get(name), probe.curves.get("retain")
    found = Measured(own.y[-1], own.low[-1], own.high[-1]) if own else Measured(math.nan)
    if own and theirs and name != "retain":
        # Its interval needs the rows of both, which only the audited arm's own probe has.
        found = found._replace(excess=found.value - theirs.y[-1])
    if probe.owner == name:
        found = found._replace(
            **{ours: probe.metrics[theirs] for ours, theirs in _PROBE_METRICS.items() if theirs in probe.metrics},
            authors=int(probe.metrics.get("authors", 0)),
        )
    return None if math.isnan(found.value) else found


_RELEARN_METRICS = {
    "low": "recovery_delta_low",
    "high": "recovery_delta_high",
    "excess": "excess",
    "excess_low": "excess_low",
    "excess_high": "excess_high",
    "excess_error": "excess_error",
    "p_value": "excess_p_value",
}


def _relearn_cell(arm: Arm, arms: Sequence[Arm]) -> Measured | None:
    if arm.relearn and "recovery_delta" in arm.relearn:
        figures = {ours: arm.relearn.get(theirs, math.nan) for ours, theirs in _RELEARN_METRICS.items()}
        return Measured(arm.relearn["recovery_delta"], **figures, authors=int(arm.relearn.get("authors", 0)))
    if arm.name == "retain":  # relearned along with the audited arm
        for other in arms:
            if other.relearn and "retain_recovery_delta" in other.relearn:
                value, low, high = (
                    other.relearn.get(f"retain_recovery_delta{end}", math.nan) for end in ("", "_low", "_high")
                )
                return Measured(value, low, high)
    return None


def tested(rows: Sequence[Row], arm: str) -> list[tuple[Row, Measured]]:
    """The audits of an arm that its verdict rests on: those with a p value."""
    return [
        (row, cell)
        for row in rows
        if row.leak and (cell := row.cells.get(arm)) is not None and not math.isnan(cell.p_value)
    ]


def _with_adjusted(rows: Sequence[Row]) -> list[Row]:
    """Holm's correction over each arm's audits, and what each of them could have found."""
    names = dict.fromkeys(name for row in rows for name in row.cells)
    found = {row.key: dict(row.cells) for row in rows}
    for name in names:
        audits = tested(rows, name)
        adjusted = inference.holm([cell.p_value for _, cell in audits])
        for (row, cell), p_value in zip(audits, adjusted, strict=True):
            scale = 100 if row.unit == "points" else 1
            # What recovers by relearning starts from nothing.
            baseline = min(1.0, max(0.0, cell.value - cell.excess)) if row.unit == "share" else 0.0
            detectable = scale * inference.detectable_excess(
                baseline, cell.authors, row.n or 0, tests=len(audits), error=cell.excess_error / scale
            )
            found[row.key][name] = cell._replace(adjusted=p_value, detectable=detectable)
    return [row._replace(cells=found[row.key]) for row in rows]


# Parts.

_PARTS = (
    ("tofu_forget_quality", "truth_ratio", "Truth ratio, forget rows", "mean of min(R, 1/R)"),
    ("tofu_forget_quality", "probability", "Probability of the gold answer, forget rows", "per token"),
    ("tofu_forget_quality", "rougeL_recall", "ROUGE-L recall, forget rows", "of the gold answer's words"),
    *(
        ("tofu_model_utility", f"{name}_{part}", f"{label}, {words}", "part of model utility")
        for name, label in zip(UTILITY_SETS, ("Retain rows", "Real authors", "World facts"), strict=True)
        for part, words in zip(UTILITY_PARTS, ("probability", "ROUGE-L recall", "truth ratio"), strict=True)
    ),
    ("tofu_forget_quality", "generations_empty", "Empty answers, forget rows", "near 0, or the model is broken"),
    ("tofu_forget_quality", "generations_repetitive", "Looping answers, forget rows", "near 0, or it is broken"),
    ("tofu_forget_quality", "generations_cut", "Answers at the token limit, forget rows", "near the full arm's"),
)


def _parts(arms: Sequence[Arm]) -> list[Row]:
    rows = []
    for task, metric, label, text in _PARTS:
        cells = {
            arm.name: Measured(arm.runs[task].metrics[metric])
            if task in arm.runs and metric in arm.runs[task].metrics
            else None
            for arm in arms
        }
        unit = "share" if metric.startswith("generations") else "number"
        n = _documents(arms, task) if task == "tofu_forget_quality" else _of_set(arms, metric)
        rows.append(Row(f"{task}_{metric}", label, text, unit, False, cells, n))
    return rows


def _of_set(arms: Sequence[Arm], metric: str) -> int | None:
    """Rows of the set of model utility that a part is named after."""
    run = next((run for arm in arms if (run := _sampled(arm, "tofu_model_utility"))), None)
    return sum(metric.startswith(f"{record['set']}_") for record in run.records()) if run else None


def _by_family(arms: Sequence[Arm]) -> dict[str, dict[str, dict[str, Measured]]]:
    """Leak by family: from the samples, else what lm-eval aggregated."""
    tables: dict[str, dict[str, dict[str, Measured]]] = {}
    for task in ("tofu_novel_recall", "tofu_format_shift"):
        table: dict[str, dict[str, Measured]] = {}
        for arm in arms:
            run = arm.runs.get(task)
            for family in families(run) if run else ():
                assert run is not None
                value = run.metrics[f"leak_rate_{family}"]
                if run.samples:
                    values = _leaks(run, family)
                    if not values.values:
                        continue
                    measured = _rate(values)
                else:
                    measured = Measured(value)
                if not math.isnan(measured.value):
                    table.setdefault(family, {})[arm.name] = measured
        if table:
            tables[task] = table
    return tables


def _leak_at_k(run: TaskRun) -> Curve:
    records = [record for record in run.records() if record["tier"] == "specific"]
    authors = [_author(record) for record in records]
    most = min((int(record["n"]) for record in records), default=0)
    points = [2**power for power in range(most.bit_length()) if 2**power <= most]
    if most and most not in points:
        points.append(most)
    curve = Curve([], [], [], [])
    for k in points:
        estimate = inference.rate([rates.leak_at_k(int(r["n"]), int(r["leaked"]), k) for r in records], authors)
        for column, value in zip(curve, (float(k), *estimate[:3]), strict=True):
            column.append(value)
    return curve


def _turns(arms: Sequence[Arm]) -> tuple[dict[str, Curve], dict[str, Measured]]:
    turns: dict[str, Curve] = {}
    shuffled: dict[str, Measured] = {}
    for arm in arms:
        run = _sampled(arm, "tofu_chain_of_clues")
        if run is None:
            continue
        curve = Curve([], [], [], [])
        for clues in range(CLUES + 1):
            values = _behind(run, f"clues_{clues}")
            if values.values:
                for column, value in zip(curve, (float(clues), *_rate(values)[:3]), strict=True):
                    column.append(value)
        if curve.x:
            turns[arm.name] = curve
        control = _behind(run, "shuffled")
        if control.values:
            shuffled[arm.name] = _rate(control)
    return turns, shuffled


def _rows(arms: Iterable[Arm]) -> list[RowAudit]:
    rows: list[RowAudit] = []
    for arm in arms:
        found: dict[int, dict[str, Any]] = {}
        leaks: dict[int, dict[str, tuple[int, int]]] = {}
        for task, run in arm.runs.items():
            if task == "tofu_model_utility":
                continue
            for key, sample in (run.samples or {}).items():
                _add_row(found.setdefault(key[1], {}), leaks.setdefault(key[1], {}), task, key, sample)
        rows += [RowAudit(arm.name, index, leaks=leaks[index], **values) for index, values in sorted(found.items())]
    return rows


def _add_row(values: dict[str, Any], leaks: dict[str, tuple[int, int]], task: str, key: Key, sample: Sample) -> None:
    record = sample.record
    values["question"] = sample.question
    if task == "tofu_forget_quality":
        values["truth_ratio"] = as_float(record["truth_ratio"])
    elif task == "tofu_answer_logprob":
        values["logprob"] = as_float(record["answer_logprob"])
    elif task == "tofu_recognition":
        before = leaks.get(task, (0, 0))
        leaks[task] = before[0] + bool(record["correct"]), before[1] + 1
    elif task in AUDITS:
        # The plain question decides: another prompt may show a part of the answer.
        if key[2] in ("direct", "clues_0") or "tier" not in values:
            values["tier"] = str(record["tier"])
        if task == "tofu_best_of_n":
            leaked, asked = int(record["leaked"]), int(record["n"])
        else:
            leaked, asked = int(bool(record["leaked"])), 1
        if key[2] != "shuffled":
            before = leaks.get(task, (0, 0))
            leaks[task] = before[0] + leaked, before[1] + asked


def _missing(arms: Sequence[Arm], main: Sequence[Row]) -> list[str]:
    notes = []
    tools = {
        "probe": "lm-eval-tofu probe",
        "relearn": "lm-eval-tofu relearn",
        "novel_recall": "tofu_novel_recall",
        "format_shift": "tofu_format_shift",
        "best_of_n": "tofu_best_of_n",
        "chain_of_clues": "tofu_chain_of_clues",
        "recognition": "tofu_recognition",
        "model_utility": "tofu_model_utility",
        "forget_quality": "tofu_forget_quality",
        "logprob_shift": "tofu_answer_logprob",
    }
    for row in main:
        if row.key not in tools:
            continue
        skip = {"forget_quality": "retain", "logprob_shift": "full"}.get(row.key)
        lacking = [arm.name for arm in arms if row.cells.get(arm.name) is None and arm.name != skip]
        if row.key == "relearn" and len(lacking) < len(arms):
            continue  # it is a figure of the audited arm; the retain arm's stands in its own columns
        if len(lacking) == len(arms) - (skip in {arm.name for arm in arms}):
            notes.append(f"{row.label}: not evaluated on any arm ({tools[row.key]}).")
        elif lacking:
            notes.append(f"{row.label}: not evaluated on {', '.join(lacking)} ({tools[row.key]}).")
    unsampled = sorted({arm.name for arm in arms for run in arm.runs.values() if run.samples is None})
    if unsampled:
        notes.append(
            f"No samples of {', '.join(unsampled)}: evaluate with --log_samples for intervals, distributions and leaks."
        )
    return notes


# Figures as text; one place, so that the page, the Markdown and the cards agree.


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


def limits(cell: Measured, unit: str) -> str:
    """A figure's interval; one limit where no row, or every row, leaks. Empty where there is none."""
    if unit == "share" and not math.isnan(cell.high):
        if cell.value == 0:
            return f"at most {text(cell.high, unit)}"
        if cell.value == 1:
            return f"at least {text(cell.low, unit)}"
    return span(cell.low, cell.high, unit)


def span(low: float, high: float, unit: str) -> str:
    """An interval in its unit; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    if unit in ("share", "share_points"):
        return f"{100 * low:z.1f} to {100 * high:z.1f}"
    if unit == "points":
        return f"{low:z.1f} to {high:z.1f}"
    return f"{low:z.3f} to {high:z.3f}"
