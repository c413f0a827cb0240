"""The hooks that the YAML files name: rows of a task, metrics of a document, aggregations over documents."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import ReferenceRunError
from lm_eval_tofu.metrics import benchmark, text
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.task import Row, Scored

log = logging.getLogger(__name__)

UTILITY_SETS = ("retain", "real_authors", "world_facts")
"""The three sets of model utility, in the order of their documents."""


# Rows: what `custom_dataset` names.


def forget_rows(options: Options) -> list[Row]:
    """The forget split with its paraphrased and perturbed answers."""
    return _rows("forget", f"{options.forget_split}_perturbed", options)


def utility_rows(options: Options) -> list[Row]:
    """Retain rows, real authors and world facts; the last two have no paraphrase, the gold answer stands in for it."""
    return [
        {"paraphrased_answer": row["answer"], "paraphrased_question": row["question"], **row}
        for name in UTILITY_SETS
        for row in _rows(name, f"{name}_perturbed", options)
    ]


def _rows(name: str, config: str, options: Options) -> list[Row]:
    rows = tofu.load(config, options.source)
    return [{"set": name, "index": index, **row} for index, row in enumerate(rows)]


# Documents: what `process_results` names. The first metric's value is the document's record, which says all there is to
# know and is what a reference run is read from; the rest are numbers.


def forget_quality_of_row(doc: Row, scored: Scored) -> dict[str, Any]:
    """Metrics of a forget row: its truth ratio beside the retain arm's, its probability, its greedy answer."""
    eps = scored.options.truth_ratio_eps
    losses = scored.losses
    ratio = benchmark.truth_ratio(losses["paraphrased_answer"], losses["perturbed_answer"], eps)
    pair = (ratio, _reference_ratio(scored, eps))
    generation = scored.generation or ""
    rouge = text.rouge_l_recall(doc["answer"], generation)
    record = _record(doc, scored, truth_ratio=ratio, retain_truth_ratio=pair[1], generation=generation)
    return {
        "forget_quality": record,
        "forget_quality_log10": pair,
        "ks_statistic": pair,
        "truth_ratio": ratio,
        "probability": benchmark.probability(losses["answer"]),
        "rougeL_recall": rouge,
        "n": 1,
        **_generation_metrics(generation, scored),
    }


def utility_of_row(doc: Row, scored: Scored) -> dict[str, Any]:
    """Metrics of a utility row: the three components of its own set; the other sets' are None."""
    eps = scored.options.truth_ratio_eps
    losses, generation = scored.losses, scored.generation or ""
    if doc["set"] == "retain":
        probability = benchmark.probability(losses["answer"])
    else:
        probability = benchmark.normalised_probability(losses["answer"], losses["perturbed_answer"], eps)
    values = {
        "probability": probability,
        "rougeL_recall": text.rouge_l_recall(doc["answer"], generation),
        "truth_ratio": benchmark.truth_ratio(losses["paraphrased_answer"], losses["perturbed_answer"], eps),
    }
    components = {
        f"{name}_{metric}": value if name == doc["set"] else None
        for name in UTILITY_SETS
        for metric, value in values.items()
    }
    record = _record(doc, scored, **values, generation=generation)
    return {"model_utility": record, **components, "n": 1, **_generation_metrics(generation, scored)}


def answer_logprob_of_row(doc: Row, scored: Scored) -> dict[str, Any]:
    """Mean log-probability of the gold answer's tokens, beside the full arm's."""
    logprob = -scored.losses["answer"]
    theirs = scored.reference.losses.get("answer") if scored.reference else None
    if scored.reference and theirs is None:
        raise ReferenceRunError(
            f"full_reference={scored.options.full_reference!r} holds no loss of the gold answers (forget_Q_A_Prob): "
            "name a run of tofu_answer_logprob"
        )
    full_logprob = None if theirs is None else -theirs
    record = _record(doc, scored, answer_logprob=logprob, full_answer_logprob=full_logprob)
    return {"answer_logprob": record, "answer_logprob_shift": (logprob, full_logprob), "n": 1}


def _record(doc: Row, scored: Scored, **values: Any) -> dict[str, Any]:
    return {
        "task": scored.task,
        "version": scored.version,
        "split": scored.options.forget_split,
        "set": doc["set"],
        "index": doc["index"],
        "losses": dict(scored.losses),
        **values,
    }


def _reference_ratio(scored: Scored, eps: float) -> float | None:
    if scored.reference is None:
        return None
    losses = scored.reference.losses
    if "paraphrased_answer" in losses and "perturbed_answer" in losses:
        return benchmark.truth_ratio(losses["paraphrased_answer"], losses["perturbed_answer"], eps)
    if scored.reference.truth_ratio is None:
        raise ReferenceRunError(
            f"retain_reference={scored.options.retain_reference!r} holds no truth ratios: "
            "name a run of tofu_forget_quality"
        )
    return scored.reference.truth_ratio


def _generation_metrics(generation: str, scored: Scored) -> dict[str, float]:
    return {
        "generations_empty": float(text.is_empty(generation)),
        "generations_repetitive": float(text.is_repetitive(generation)),
        "generations_cut": float(scored.generation_cut),
    }


# Aggregations: what `metric_list` names.


def mean(values: Sequence[float]) -> float:
    """Mean over the documents; NaN where one is NaN."""
    return float(np.mean(values))


def total(values: Sequence[float]) -> float:
    """Sum over the documents."""
    return float(np.sum(values))


def forget_truth_ratio(ratios: Sequence[float]) -> float:
    """Mean of min(R, 1/R)."""
    return benchmark.forget_truth_ratio(ratios)


def forget_quality(records: Sequence[Mapping[str, Any]]) -> float:
    """KS p value against the retain arm; NaN with a warning without one."""
    pairs = [(record["truth_ratio"], record["retain_truth_ratio"]) for record in records]
    if any(theirs is None for _, theirs in pairs):
        log.warning(
            "forget_quality is NaN: it compares with the retain arm. Run lm_eval --tasks tofu_forget_quality "
            "--log_samples --output_path DIR on a model that was fine-tuned on the retain split only, then pass "
            '--metadata \'{"retain_reference": "DIR"}\''
        )
    return _compare(pairs).p_value


def forget_quality_log10(pairs: Sequence[tuple[float, float | None]]) -> float:
    """Decimal logarithm of the KS p value."""
    return _compare(pairs).log10_p_value


def ks_statistic(pairs: Sequence[tuple[float, float | None]]) -> float:
    """KS distance D between the model's truth ratios and the retain arm's."""
    return _compare(pairs).statistic


def _compare(pairs: Iterable[tuple[float, float | None]]) -> benchmark.ForgetQuality:
    ours, theirs = zip(*pairs, strict=True)
    return benchmark.forget_quality(ours, [math.nan if value is None else value for value in theirs])


def model_utility(records: Sequence[Mapping[str, Any]]) -> float:
    """Harmonic mean of the nine components."""
    components = []
    for name in UTILITY_SETS:
        rows = [record for record in records if record["set"] == name]
        components += [component([row[metric] for row in rows]) for metric in ("probability", "rougeL_recall")]
        components.append(component_truth_ratio([row["truth_ratio"] for row in rows]))
    return benchmark.model_utility(components)


def component(values: Sequence[float | None]) -> float:
    """Mean over the rows of one utility set."""
    own = _own(values)
    return float(np.mean(own)) if own else math.nan


def component_truth_ratio(values: Sequence[float | None]) -> float:
    """Mean of max(0, 1 - R) over the rows of one utility set."""
    own = _own(values)
    return benchmark.utility_truth_ratio(own) if own else math.nan


def _own(values: Sequence[float | None]) -> list[float]:
    own = [value for value in values if value is not None]
    if not own:
        log.warning("a set of model utility has no row (--limit takes the first rows only), so the metric is NaN")
    return own


def answer_logprob(records: Sequence[Mapping[str, Any]]) -> float:
    """Mean over the rows of the mean log-probability of an answer's tokens, nats/token."""
    return float(np.mean([record["answer_logprob"] for record in records]))


def answer_logprob_shift(pairs: Sequence[tuple[float, float | None]]) -> float:
    """Mean difference to the full arm, nats/token; NaN with a warning without one."""
    if any(theirs is None for _, theirs in pairs):
        log.warning(
            "answer_logprob_shift is NaN: it compares with the full arm. Run lm_eval --tasks tofu_answer_logprob "
            "--log_samples --output_path DIR on the model before unlearning, then pass "
            '--metadata \'{"full_reference": "DIR"}\''
        )
        return math.nan
    return float(np.mean([ours - theirs for ours, theirs in pairs if theirs is not None]))
