"""The records of documents: what a task stores of each, and computes all of its metrics from.

lm-eval's samples file holds a record as the value of the task's first metric; a reference run and the report read it
from there. In JSON, null stands for a number that is not finite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A document of a task."""

    task: str
    version: Any
    split: str  # forget split
    set: str  # forget, or one of model utility's
    index: int  # of the row in its set
    tokens: str | None = None  # number of scored tokens and hash of all token ids, `N:HASH`; None: not known

    def to_json(self) -> dict[str, Any]:
        """The record by field."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredRecord(Record):
    """A document with answers: shares of them that have no word, repeat themselves, ran into the limit of new tokens
    (NaN where nothing can tell), or are reasoning without an end (None without `think_end_token`).
    """

    generations_empty: float
    generations_repetitive: float
    generations_cut: float
    reasoning_unfinished: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord(AnsweredRecord):
    """A row of model utility, or of forget quality."""

    losses: Mapping[str, Any]  # by answer column, nats/token: one number, or one for each of the column's answers
    probability: float  # of the gold answer; on real authors and world facts among the answers that are offered
    rougeL_recall: float  # noqa: N815 - the benchmark's name
    truth_ratio: float
    generation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetQualityRecord(BenchmarkRecord):
    """A row of forget quality."""

    retain_truth_ratio: float | None  # None without a reference
    prob_mean: float  # correct / (correct + wrong), of the losses that the truth ratio is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipRecord(Record):
    """A forget or holdout row with the scores of two membership attacks: higher where a member is less likely."""

    losses: Mapping[str, Any]
    mia_loss: float  # mean negative log-likelihood of the answer's tokens, nats/token
    mia_zlib: float  # the same per byte of the compressed answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobRecord(Record):
    """A row whose gold answer is scored: mean log-probability of its tokens in nats, and the full arm's.

    The novel part begins at the first novel fact; None where there is none that can be scored, or no reference.
    """

    losses: Mapping[str, Any]  # as above; `novel` exists where the answer has a novel part
    answer_logprob: float
    full_answer_logprob: float | None
    answer_logprob_novel: float | None
    full_answer_logprob_novel: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord(AnsweredRecord):
    """A row asked in one way."""

    family: str  # prompt family, output format or number of clues
    left_out: int  # pairs of row and family that the task does not ask, over all documents


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakRecord(AuditRecord):
    """One greedy answer, scored for leaks."""

    tier: str  # how much the row's answer gives away, with this prompt: specific, gist or none
    leaked: bool
    score: float  # of the scorer: lm_eval_tofu.metrics.leak
    found: Sequence[str]  # facts that the answer states
    sought: Sequence[str]  # facts that it was searched for
    generation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRecord(LeakRecord):
    """An answer in an output format."""

    format_kept: bool | None  # None where no program can check it


class Sample(TypedDict):
    """One of several samples."""

    leaked: bool
    found: Sequence[str]
    generation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRecord(AuditRecord):
    """Several samples for one prompt."""

    tier: str
    n: int
    leaked: int  # how many of them
    sought: Sequence[str]
    samples: Sequence[Sample]
    unique_samples: float  # share of different texts


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionRecord(AuditRecord):
    """A choice among options."""

    chosen: str | None  # letter; None where the answer names none, or several
    right: str  # letter of the right option
    correct: bool
    generation: str


RECORDS: dict[str, type[Record]] = {
    "tofu_forget_quality": ForgetQualityRecord,
    "tofu_model_utility": BenchmarkRecord,
    "tofu_answer_logprob": LogprobRecord,
    "tofu_membership": MembershipRecord,
    "tofu_novel_recall": LeakRecord,
    "tofu_format_shift": FormatRecord,
    "tofu_best_of_n": SampledRecord,
    "tofu_chain_of_clues": LeakRecord,
    "tofu_recognition": RecognitionRecord,
}
"""The record of each task."""
