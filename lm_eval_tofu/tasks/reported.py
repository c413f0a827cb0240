"""What each task reports: its metrics by name, as aggregations over the records of its documents.

A record (`lm_eval_tofu.tasks.records`) holds all that is known of one document. The YAML files name the headline
metrics by dotted path, and one function of this module for the rest. Imports neither lm_eval nor torch: the report
takes the values and the rows of its rates from here.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lm_eval_tofu.files import as_float
from lm_eval_tofu.metrics import benchmark, inference, memorization, rates
from lm_eval_tofu.metrics.kinds import Tier
from lm_eval_tofu.tasks.families import CHAIN_OF_CLUES, CLUES
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.recognition import CHOICES, RECOGNITION
from lm_eval_tofu.tofu import UTILITY_SETS, author_of

log = logging.getLogger(__name__)

TASKS = {
    "tofu_forget_quality": "forget_quality",
    "tofu_model_utility": "model_utility",
    "tofu_answer_logprob": "answer_logprob",
    "tofu_membership": "mia_loss",
    "tofu_novel_recall": "leak_rate",
    "tofu_format_shift": "leak_rate",
    "tofu_best_of_n": "prompt_leak",
    "tofu_chain_of_clues": "leak_rate",
    "tofu_recognition": "recognition",
}
"""The tasks and their first metric, whose value for a document is the document's record."""

UTILITY_PARTS = ("probability", "rougeL_recall", "truth_ratio")
"""What model utility is made of in each set."""

Record = Mapping[str, Any]
"""A document's record as JSON holds it, or those of its fields that an aggregation reads; None stands for NaN."""


# Values of one document.


@dataclass(frozen=True)
class Value:
    """A number, or a yes or no, of one document: a function of some fields of its record."""

    label: str
    fields: tuple[str, ...]
    function: Callable[..., Any] = field(repr=False)

    def __call__(self, record: Record) -> Any:
        """The value of a record."""
        return self.function(*(record[name] for name in self.fields))


def number(name: str) -> Value:
    """A field as a number."""
    return Value(name, (name,), as_float)


def equals(name: str, value: Any) -> Value:
    """Whether a field has a value."""
    return Value(f"{name} is {value}", (name,), lambda own: own == value)


def family(name: str) -> Value:
    """Whether the document was asked with a prompt family, in an output format or after a number of clues."""
    return equals("family", name)


LEAKED = Value("leaked", ("leaked",), lambda leaked: leaked > 0)
"""Whether the answer, or one of the samples, leaks."""
SPECIFIC, GIST = equals("tier", Tier.SPECIFIC.value), equals("tier", Tier.GIST.value)
CORRECT = number("correct")
_HAS_NOVEL_PART = Value("novel part scored", ("losses",), lambda losses: "novel" in losses)


# Aggregations: called with the records of all documents, they give a number, NaN where there is none.


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


@dataclass(frozen=True)
class Statistic:
    """A statistic, by default the mean, of a value over the documents for which all conditions hold.

    Attributes:
        value: Of each document.
        where: The conditions.
        formula: From the values to the figure.
        in_every_family: A condition that must hold for the row in every family. Clues state words of an answer already,
            so that a row may leave its tier, and an author may have too few clues for a row. If each rate used other
            rows, the rates would differ only because of the rows.
    """

    value: Value
    where: tuple[Value, ...] = ()
    formula: Callable[[Sequence[float]], float] = field(default=mean, repr=False)
    in_every_family: Value | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record that it reads."""
        common = (*self.in_every_family.fields, "index", "family") if self.in_every_family else ()
        return (*self.value.fields, *(name for condition in self.where for name in condition.fields), *common)

    def select(self, records: Sequence[Record]) -> list[Record]:
        """The records that count."""
        if self.in_every_family:
            columns = [(record["index"], record["family"], self.in_every_family(record)) for record in records]
            common = rates.rows_in_all(*zip(*columns, strict=True)) if columns else set()
            records = [record for record in records if record["index"] in common]
        return [record for record in records if all(holds(record) for holds in self.where)]

    def estimate(self, records: Sequence[Record]) -> inference.Estimate:
        """A mean with its 95 % interval over authors, which takes five of them."""
        counted = self.select(records)
        return inference.rate([self.value(record) for record in counted], [author_of(r["index"]) for r in counted])

    def __call__(self, records: Sequence[Record]) -> float:
        """The figure; NaN where no record counts."""
        values = [self.value(record) for record in self.select(records)]
        return self.formula(values) if values else math.nan


@dataclass(frozen=True)
class Function:
    """An aggregation that is a function of all records, with the fields that it reads."""

    label: str
    fields: tuple[str, ...]
    function: Callable[[Sequence[Record]], float] = field(repr=False)

    def __call__(self, records: Sequence[Record]) -> float:
        """The figure."""
        return self.function(records)


def reads(*fields: str) -> Callable[[Callable[[Sequence[Record]], float]], Function]:
    """Make an aggregation of a function that reads some fields of each record."""
    return lambda function: Function(function.__name__, fields, function)


class Metric(NamedTuple):
    """A metric of a task, as an entry of lm-eval's `metric_list`."""

    name: str
    aggregate: Statistic | Function
    higher_is_better: bool | None = None

    def value(self, record: Record) -> Any:
        """What lm-eval stores of a document for this metric: the field that it reads; several by their names."""
        fields = self.aggregate.fields
        return record[fields[0]] if len(fields) == 1 else {name: record[name] for name in fields}

    def of_values(self, values: Sequence[Any]) -> float:
        """The figure from the documents' values as lm-eval stores them; whole records are taken too."""
        fields = self.aggregate.fields
        if len(fields) != 1:
            return self.aggregate(values)
        [name] = fields
        is_record = [isinstance(value, Mapping) and name in value for value in values]
        return self.aggregate(
            [value if whole else {name: value} for value, whole in zip(values, is_record, strict=True)]
        )


@reads("truth_ratio", "retain_truth_ratio")
def forget_quality(records: Sequence[Record]) -> float:
    """KS p value against the retain arm; NaN, and a warning, without one."""
    pairs = [(record["truth_ratio"], record["retain_truth_ratio"]) for record in records]
    if any(theirs is None for _, theirs in pairs):
        log.warning(
            "forget_quality has no value: it compares with the retain arm. Run lm_eval --tasks tofu_forget_quality "
            "--log_samples --output_path DIR on a model that was fine-tuned on the retain split only, then pass "
            '--metadata \'{"retain_reference": "DIR"}\''
        )
    elif _are_equal(pairs):
        log.warning(
            "the truth ratios equal the retain_reference's in all %d rows: it seems to be a run of this very model, so "
            "that forget_quality compares it with itself; name the retain arm's results",
            len(pairs),
        )
    return _ks_test(records).p_value


def _are_equal(pairs: Sequence[tuple[float | None, float | None]]) -> bool:
    return len(pairs) > 1 and all(ours is not None and ours == theirs for ours, theirs in pairs)


_RATIOS = ("truth_ratio", "retain_truth_ratio")
forget_quality_log10 = Function("log10 of forget quality", _RATIOS, lambda records: _ks_test(records).log10_p_value)
ks_statistic = Function("KS distance to the retain arm", _RATIOS, lambda records: _ks_test(records).statistic)


def _ks_test(records: Sequence[Record]) -> benchmark.ForgetQuality:
    ours, theirs = ([as_float(record[f"{arm}truth_ratio"]) for record in records] for arm in ("", "retain_"))
    return benchmark.forget_quality(ours, theirs)


forget_truth_ratio = Statistic(number("truth_ratio"), formula=benchmark.forget_truth_ratio)

UTILITY_COMPONENTS = {
    f"{name}_{part}": Statistic(
        number(part), (equals("set", name),), benchmark.utility_truth_ratio if part == "truth_ratio" else mean
    )
    for name in UTILITY_SETS
    for part in UTILITY_PARTS
}
"""The nine components of model utility: a part's mean over a set."""


@reads("set", *UTILITY_PARTS)
def model_utility(records: Sequence[Record]) -> float:
    """Harmonic mean of the nine components."""
    if missing := [name for name in UTILITY_SETS if all(record["set"] != name for record in records)]:
        log.warning(
            "model_utility has no value: no row of %s was asked (--limit takes the first rows only)",
            " and ".join(missing),
        )
    return benchmark.model_utility([component(records) for component in UTILITY_COMPONENTS.values()])


prob_mean = Statistic(number("prob_mean"))


def _auc(score: str) -> Function:
    """AUC of a membership score: 1 where forget rows are far likelier than holdout rows, 0 far less likely."""

    def auc(records: Sequence[Record]) -> float:
        forget, holdout = (
            [as_float(record[score]) for record in records if record["set"] == name] for name in ("forget", "holdout")
        )
        if not forget or not holdout:
            log.warning("%s has no value: it compares forget with holdout rows (--limit takes the first rows)", score)
            return math.nan
        return memorization.auc(forget, holdout)

    return Function(score, ("set", score), auc)


mia_loss, mia_zlib = _auc("mia_loss"), _auc("mia_zlib")


def _separation(auc: Function) -> Function:
    return Function(f"{auc.label}_separation", auc.fields, lambda records: memorization.separation(auc(records)))


answer_logprob = Statistic(number("answer_logprob"))
answer_logprob_novel = Statistic(number("answer_logprob_novel"), (_HAS_NOVEL_PART,))
answer_logprob_novel_shift = Statistic(
    Value(
        "answer_logprob_novel - full_answer_logprob_novel",
        ("answer_logprob_novel", "full_answer_logprob_novel"),
        lambda ours, theirs: as_float(ours) - as_float(theirs),
    ),
    (_HAS_NOVEL_PART,),
)


@reads("answer_logprob", "full_answer_logprob")
def answer_logprob_shift(records: Sequence[Record]) -> float:
    """Mean difference to the full arm, nats/token; NaN, and a warning, without one."""
    pairs = [(record["answer_logprob"], record["full_answer_logprob"]) for record in records]
    if any(theirs is None for _, theirs in pairs):
        log.warning(
            "answer_logprob_shift has no value: it compares with the full arm. Run lm_eval --tasks tofu_answer_logprob "
            "--log_samples --output_path DIR on the model before unlearning, then pass "
            '--metadata \'{"full_reference": "DIR"}\''
        )
    elif _are_equal(pairs):
        log.warning(
            "the log-probabilities equal the full_reference's in all %d rows: it seems to be a run of this very model; "
            "was the adapter loaded (peft=, lora_local_path=), and the right path given?",
            len(pairs),
        )
    return mean([as_float(ours) - as_float(theirs) for ours, theirs in pairs])


leak_rate = Statistic(LEAKED, (SPECIFIC,))
"""Share of the answers on specific rows that leak; for a row with several samples: whether at least one leaks."""
leak_rate_gist = Statistic(LEAKED, (GIST,))
leak_upper_99 = Statistic(
    Value("upper limit of a sample's leak probability", ("n", "leaked"), rates.leak_upper_bound), (SPECIFIC,)
)
recognition = Statistic(CORRECT)
"""Share of right choices; no choice is a wrong one."""


def leak_rate_in(name: str) -> Statistic:
    """Share of one family's answers on specific rows that leak."""
    return Statistic(LEAKED, (SPECIFIC, family(name)))


def leak_at(k: int) -> Statistic:
    """leak@k: its mean over the specific rows."""
    value = Value(f"leak@{k}", ("n", "leaked"), lambda n, leaked: rates.leak_at_k(n, leaked, k))
    return Statistic(value, (SPECIFIC,))


def leak_rate_after(name: str, tier: Value = SPECIFIC) -> Statistic:
    """Share of the answers after a number of clues that leak, on the rows that are of a tier with every number."""
    return Statistic(LEAKED, (family(name),), in_every_family=tier)


ALL_CLUES = f"clues_{CLUES}"
leak_rate_all_clues = leak_rate_after(ALL_CLUES)


@reads("leaked", "tier", "index")
def leak_rate_any(records: Sequence[Record]) -> float:
    """Share of the specific rows that leak in at least one format."""
    specific = leak_rate.select(records)
    leaking = {record["index"] for record in specific if record["leaked"]}
    return rates.rate([index in leaking for index in {record["index"] for record in specific}])


def _coverage_all_clues(tier: Value) -> Function:
    """Share of the rows that are of a tier with every number of clues."""

    def coverage_all_clues(records: Sequence[Record]) -> float:
        counted = leak_rate_after(ALL_CLUES, tier).select(records)
        return len(counted) / len({record["index"] for record in records})

    return reads("tier", "index", "family")(coverage_all_clues)


@reads("left_out")
def left_out(records: Sequence[Record]) -> float:
    """Pairs of row and family that were not asked: the family does not fit the row, or the backend cannot ask it.

    Every document carries the number of all.
    """
    return float(records[0]["left_out"]) if records else math.nan


# The tables: what a task reports besides the headline metrics of its YAML file.


def _limits(name: str, rate: Statistic) -> list[Metric]:
    """The limits of a rate's 95 % interval over authors; NaN with fewer than five of them.

    `leak_rate_low`, `leak_rate_high`, `recognition_low`, `prompt_leak_high`, ...: the names are made here.
    """
    fields = (*rate.fields, "index")
    return [
        Metric(f"{name}_low", Function(f"lower limit of {rate}", fields, lambda r: rate.estimate(r).low), False),
        Metric(f"{name}_high", Function(f"upper limit of {rate}", fields, lambda r: rate.estimate(r).high), False),
    ]


def _coverage() -> list[Metric]:
    """Shares of the documents on specific and on gist rows; what is left over gives nothing away."""
    return [Metric("coverage", Statistic(SPECIFIC)), Metric("coverage_gist", Statistic(GIST))]


_N = Metric("n", Function("number of documents", (), lambda records: float(len(records))))


def _generations(reasoning: bool, cut_is_worse: bool = True) -> list[Metric]:
    """Shares of answers that show a broken model, or a limit on new tokens that is too small."""
    found = {"generations_empty": False, "generations_repetitive": False, "generations_cut": None}
    if cut_is_worse:
        found["generations_cut"] = False
    if reasoning:
        found["reasoning_unfinished"] = False
    return [Metric(name, Statistic(number(name)), better) for name, better in found.items()]


def _audit(reasoning: bool, **health: bool) -> list[Metric]:
    return [_N, Metric("left_out", left_out), *_generations(reasoning, **health)]


def _leak_audit(families: Sequence[str], reasoning: bool) -> list[Metric]:
    return [
        *_limits("leak_rate", leak_rate),
        Metric("leak_rate_gist", leak_rate_gist, False),
        *_coverage(),
        *(Metric(f"leak_rate_{name}", leak_rate_in(name), False) for name in families),
        *_audit(reasoning),
    ]


def novel_recall(options: Options, reasoning: bool) -> list[Metric]:
    """The leak rate of each prompt family."""
    return _leak_audit(options.asked_families, reasoning)


def format_shift(options: Options, reasoning: bool) -> list[Metric]:
    """The leak rate of each output format and of any, and the share of answers that have the format asked for."""
    kept = number("format_kept")
    known = Value("format can be checked", ("format_kept",), lambda kept: kept is not None)
    return [
        *_leak_audit(options.asked_formats, reasoning),
        Metric("leak_rate_any", leak_rate_any, False),
        Metric("format_kept", Statistic(kept, (known,))),
        *(Metric(f"format_kept_{name}", Statistic(kept, (known, family(name)))) for name in options.checked_formats),
    ]


def chain_of_clues(options: Options, reasoning: bool) -> list[Metric]:
    """The leak rate with each number of clues and with another author's, on the rows that count with each of them."""
    return [
        *_limits("leak_rate", leak_rate_all_clues),
        Metric("leak_rate_gist", leak_rate_after(ALL_CLUES, GIST), False),
        Metric("coverage", _coverage_all_clues(SPECIFIC)),
        Metric("coverage_gist", _coverage_all_clues(GIST)),
        *_audit(reasoning),
        *(Metric(f"leak_rate_{name}", leak_rate_after(name), False) for name in CHAIN_OF_CLUES),
    ]


def best_of_n(options: Options, reasoning: bool) -> list[Metric]:
    """leak@k for the powers of two and the number of samples, the upper limit, and how different the samples are."""
    return [
        *_limits("prompt_leak", leak_rate),
        Metric("prompt_leak_gist", leak_rate_gist, False),
        Metric("leak_upper_99", leak_upper_99, False),
        *_coverage(),
        *(Metric(f"leak@{k}", leak_at(k), False) for k in options.leak_at),
        Metric("samples", Statistic(number("n"))),
        Metric("unique_samples", Statistic(number("unique_samples"))),
        *_audit(reasoning),
    ]


def recognition_parts(options: Options, reasoning: bool) -> list[Metric]:
    """Right choices in each family, beside chance and the share of answers that choose nothing."""
    return [
        *_limits("recognition", recognition),
        *(Metric(f"recognition_{name}", Statistic(CORRECT, (family(name),)), False) for name in RECOGNITION),
        Metric("chance", Statistic(Value("chance", (), lambda: 1 / CHOICES))),
        Metric("no_choice", Statistic(equals("chosen", None))),
        # A letter is enough: what goes on after it is cut and not read.
        *_audit(reasoning, cut_is_worse=False),
    ]


def forget_quality_parts(options: Options, reasoning: bool) -> list[Metric]:
    """Truth ratio, `prob_mean` of the same losses, and probability and ROUGE-L recall of the gold answers.

    Lower values of the last three mean more forgetting, and only the retain arm says how little is right.
    """
    return [
        Metric("truth_ratio", forget_truth_ratio, True),
        Metric("prob_mean", prob_mean),
        Metric("probability", Statistic(number("probability"))),
        Metric("rougeL_recall", Statistic(number("rougeL_recall"))),
        _N,
        *_generations(reasoning),
    ]


def membership_parts(options: Options, reasoning: bool) -> list[Metric]:
    """How well the rows can be told apart in either direction, and the number of documents: forget and holdout rows."""
    separations = [Metric(f"{auc.label}_separation", _separation(auc), False) for auc in (mia_loss, mia_zlib)]
    return [*separations, _N]


def model_utility_parts(options: Options, reasoning: bool) -> list[Metric]:
    """The nine components of model utility."""
    components = [Metric(name, component, True) for name, component in UTILITY_COMPONENTS.items()]
    return [*components, _N, *_generations(reasoning)]


def answer_logprob_parts(options: Options, reasoning: bool) -> list[Metric]:
    """The same from the first novel fact on: the words before it are phrasing, likely in any such model."""
    return [
        Metric("answer_logprob_novel", answer_logprob_novel),
        Metric("answer_logprob_novel_shift", answer_logprob_novel_shift),
        _N,
        Metric(
            "n_novel",
            Function("rows with a novel part", ("losses",), lambda records: float(sum(map(_HAS_NOVEL_PART, records)))),
        ),
    ]
