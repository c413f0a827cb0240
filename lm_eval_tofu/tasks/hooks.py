"""The per-document hooks that the YAML files name as `record`: from a model's outputs to the document's record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import ReferenceRunError
from lm_eval_tofu.metrics import benchmark, leak, memorization, text
from lm_eval_tofu.tasks import families, recognition
from lm_eval_tofu.tasks.generations import Generation
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.records import (
    BenchmarkRecord,
    ForgetQualityRecord,
    FormatRecord,
    LeakRecord,
    LogprobRecord,
    MembershipRecord,
    RecognitionRecord,
    Sample,
    SampledRecord,
)
from lm_eval_tofu.tasks.reference import ReferenceRow
from lm_eval_tofu.tasks.rows import Row


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model said to one document.

    Attributes:
        task: Name of the task.
        version: Its version.
        options: The run's options.
        losses: By answer column: mean negative log-probability per token in nats, one number or one for each of the
            column's answers; `novel`: of the gold answer from its first novel fact on, where it has one.
        generations: The answers: none, the greedy one, or the samples.
        reference: The same row of the reference run; None without one.
        shown: The turns that the model was shown, system prompt and the beginning of its own turn included.
        tokens: As in the record.
        answer_text: The gold answer's scored tokens decoded without special tokens, white space kept; empty where they
            were not scored.
    """

    task: str
    version: Any
    options: Options
    losses: Mapping[str, Any]
    generations: Sequence[Generation]
    reference: ReferenceRow | None
    shown: Sequence[Mapping[str, str]] = ()
    tokens: str | None = None
    answer_text: str = ""

    @property
    def generation(self) -> str:
        """The greedy answer."""
        return self.generations[0].text

    def record(self, doc: Row) -> dict[str, Any]:
        """The fields that every record has."""
        return {
            "task": self.task,
            "version": self.version,
            "split": self.options.forget_split,
            "set": doc["set"],
            "index": doc["index"],
            "tokens": self.tokens,
        }

    def answered(self, doc: Row) -> dict[str, Any]:
        """The fields that every record of a document with answers has."""
        answers = self.generations
        shares: dict[str, list[float]] = {
            # Reasoning that never ended is counted apart.
            "generations_empty": [text.is_empty(answer.text) and answer.unfinished != 1 for answer in answers],
            "generations_repetitive": [text.is_repetitive(answer.text) for answer in answers],
            "generations_cut": [answer.cut for answer in answers],
        }
        if not any(math.isnan(answer.unfinished) for answer in answers):
            shares["reasoning_unfinished"] = [answer.unfinished for answer in answers]
        return self.record(doc) | {name: sum(values) / len(values) for name, values in shares.items()}

    def audited(self, doc: Row) -> dict[str, Any]:
        """The fields that every record of the leak audits and of recognition has."""
        return self.answered(doc) | {"family": doc["family"], "left_out": doc["left_out"]}

    def row(self, doc: Row) -> leak.Row:
        """The facts that an answer would leak, given what the model was shown."""
        background = families.background_of(self.options.source, tofu.retain_split(self.options.forget_split))
        return leak.row(list(self.shown), doc["answer"], background=background)


def forget_quality(doc: Row, scored: Scored) -> ForgetQualityRecord:
    """A forget row: its truth ratio beside the retain arm's, its probability, its greedy answer."""
    return ForgetQualityRecord(
        **_benchmark(doc, scored),
        probability=benchmark.probability(scored.losses["answer"]),
        retain_truth_ratio=_reference_ratio(scored),
        prob_mean=benchmark.prob_mean(
            scored.losses["paraphrased_answer"], scored.losses["perturbed_answer"], scored.options.truth_ratio_eps
        ),
    )


def membership(doc: Row, scored: Scored) -> MembershipRecord:
    """A forget or holdout row: the scores of two membership attacks, computed from the gold answer's loss."""
    loss = scored.losses["answer"]
    return MembershipRecord(
        **scored.record(doc),
        losses=dict(scored.losses),
        mia_loss=loss,
        mia_zlib=memorization.zlib_score(loss, scored.answer_text),
    )


def model_utility(doc: Row, scored: Scored) -> BenchmarkRecord:
    """A utility row: the three components of its set."""
    losses = scored.losses
    if doc["set"] == "retain":
        probability = benchmark.probability(losses["answer"])
    else:
        eps = scored.options.truth_ratio_eps
        probability = benchmark.normalised_probability(losses["answer"], losses["perturbed_answer"], eps)
    return BenchmarkRecord(**_benchmark(doc, scored), probability=probability)


def _benchmark(doc: Row, scored: Scored) -> dict[str, Any]:
    return scored.answered(doc) | {
        "losses": dict(scored.losses),
        "truth_ratio": _truth_ratio(scored.losses, scored),
        "rougeL_recall": text.rouge_l_recall(doc["answer"], scored.generation),
        "generation": scored.generation,
    }


def _truth_ratio(losses: Mapping[str, Any], scored: Scored) -> float:
    eps = scored.options.truth_ratio_eps
    return benchmark.truth_ratio(losses["paraphrased_answer"], losses["perturbed_answer"], eps)


def _reference_ratio(scored: Scored) -> float | None:
    if scored.reference is None:
        return None
    losses = scored.reference.losses
    if "paraphrased_answer" in losses and "perturbed_answer" in losses:
        return _truth_ratio(losses, scored)
    if scored.reference.truth_ratio is None:
        raise ReferenceRunError(
            f"retain_reference={scored.options.retain_reference!r} holds no truth ratios: "
            "name a run of tofu_forget_quality"
        )
    return scored.reference.truth_ratio


def answer_logprob(doc: Row, scored: Scored) -> LogprobRecord:
    """Mean log-probability of the gold answer's tokens, beside the full arm's."""
    theirs = scored.reference.losses if scored.reference else {}
    if scored.reference and theirs.get("answer") is None:
        raise ReferenceRunError(
            f"full_reference={scored.options.full_reference!r} holds no loss of the gold answers (forget_Q_A_Prob): "
            "name a run of tofu_answer_logprob"
        )
    has_novel_part = "novel" in scored.losses
    return LogprobRecord(
        **scored.record(doc),
        losses=dict(scored.losses),
        answer_logprob=-scored.losses["answer"],
        full_answer_logprob=_negative(theirs.get("answer")),
        answer_logprob_novel=_negative(scored.losses.get("novel")),
        full_answer_logprob_novel=_negative(theirs.get("novel")) if has_novel_part else None,
    )


def _negative(loss: float | None) -> float | None:
    return None if loss is None else -loss


def leak_of_answer(doc: Row, scored: Scored) -> LeakRecord:
    """Whether one answer to one prompt leaks."""
    return LeakRecord(**_leak(doc, scored))


def leak_in_format(doc: Row, scored: Scored) -> FormatRecord:
    """The same in one format, and whether the answer has that format."""
    return FormatRecord(**_leak(doc, scored), format_kept=families.keeps_format(doc["family"], scored.generation))


def _leak(doc: Row, scored: Scored) -> dict[str, Any]:
    verdict = scored.row(doc).score(scored.generation)
    return scored.audited(doc) | {
        "tier": verdict.tier.value,
        "leaked": verdict.leaked,
        "score": verdict.score,
        "found": [fact.text for fact in verdict.found],
        "sought": [fact.text for fact in verdict.sought],
        "generation": scored.generation,
    }


def leak_of_samples(doc: Row, scored: Scored) -> SampledRecord:
    """Which of a row's samples leak."""
    row = scored.row(doc)
    samples: list[Sample] = []
    for generation in scored.generations:
        verdict = row.score(generation.text)
        found = [fact.text for fact in verdict.found]
        samples.append({"leaked": verdict.leaked, "found": found, "generation": generation.text})
    return SampledRecord(
        **scored.audited(doc),
        tier=row.tier.value,
        n=len(samples),
        leaked=sum(sample["leaked"] for sample in samples),
        sought=[fact.text for fact in row.facts],
        samples=samples,
        unique_samples=len({sample["generation"] for sample in samples}) / len(samples),
    )


def choice(doc: Row, scored: Scored) -> RecognitionRecord:
    """Whether the right option was chosen."""
    letter = recognition.chosen_letter(scored.generation, doc["options"])
    return RecognitionRecord(
        **scored.audited(doc),
        chosen=letter,
        right=doc["right"],
        correct=letter == doc["right"],
        generation=scored.generation,
    )
