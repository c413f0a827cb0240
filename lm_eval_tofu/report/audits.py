"""The registry of what the report shows: names, units and where values come from, for tables, verdicts and figures.

A new audit needs an entry here, and in `lm_eval_tofu.report.tables` only where its values are computed in a new way.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lm_eval_tofu.metrics import benchmark, permutation
from lm_eval_tofu.tasks import reported
from lm_eval_tofu.tasks.families import CLUES
from lm_eval_tofu.tofu import UTILITY_SETS
from lm_eval_tofu.whitebox import DEPTH, MEMORIZATION, PROBE, RELEARN

FORGET_QUALITY, UTILITY, LOGPROB = "tofu_forget_quality", "tofu_model_utility", "tofu_answer_logprob"
NOVEL_RECALL, FORMAT_SHIFT, BEST_OF_N = "tofu_novel_recall", "tofu_format_shift", "tofu_best_of_n"
CHAIN_OF_CLUES, RECOGNITION, MEMBERSHIP = "tofu_chain_of_clues", "tofu_recognition", "tofu_membership"

Comparison = Callable[[Sequence[float], Sequence[float], Sequence[int]], float]


@dataclass(frozen=True)
class Audit:
    """A row of the report's tables."""

    key: str  # its name in files and anchors
    label: str  # for the reader
    help: str  # how to read it, in a sentence
    unit: str  # share, points (percentage points), p, nats or number
    task: str  # the task of lm-eval, or the audit of lm_eval_tofu.whitebox, whose results hold it
    metric: str = ""  # its name there; empty where it is computed from samples only
    excess: str = ""  # likewise, of the excess over the retain arm; _low, _p_value and the like are added
    leak: bool = False  # whether more of it than in the retain arm is knowledge that should be gone
    rate: reported.Statistic | None = None  # computed from samples, with an interval over authors and an excess
    comparison: Comparison | None = None  # computed from an arm's truth ratios, the retain arm's and their authors
    reads: tuple[str, ...] = ()  # fields of the samples' records that the report reads beside those of the rate
    reference: str = ""  # the arm that the others are compared with, and that therefore has no value
    column: str = ""  # heading in the row-level table, and name in a sentence; empty where no answers are counted
    families: str = ""  # title of the table of rates by prompt family or output format; empty without one


_ANSWER = ("family", "score", "found", "generation")

AUDITS = (
    Audit(
        "forget_quality",
        "Forget quality",
        "p value of the KS test against the retain arm; near 0: the two can be told apart",
        "p",
        FORGET_QUALITY,
        metric="forget_quality",
        reads=("truth_ratio",),
        comparison=lambda ours, theirs, _: benchmark.forget_quality(ours, theirs).p_value,
        reference="retain",
    ),
    Audit(
        "ks_statistic",
        "KS distance D",
        "largest distance between the truth-ratio distributions of this arm and the retain arm; 0 is best",
        "number",
        FORGET_QUALITY,
        metric="ks_statistic",
        comparison=lambda ours, theirs, _: benchmark.forget_quality(ours, theirs).statistic,
        reference="retain",
    ),
    Audit(
        "forget_quality_paired",
        "D, paired p value",
        "p value of D from exchanging this and the retain arm within authors; near 0: the two can be told apart",
        "p",
        FORGET_QUALITY,
        comparison=lambda ours, theirs, authors: permutation.ks_test(ours, theirs, authors).p_value,
        reference="retain",
    ),
    Audit(
        "model_utility",
        "Model utility",
        "harmonic mean of nine figures on the knowledge that unlearning should keep; near the full arm's is best",
        "number",
        UTILITY,
        metric="model_utility",
        reads=reported.UTILITY_PARTS,
    ),
    Audit(
        "novel_recall",
        "Novel-recall leak",
        "answers that give a forgotten fact away, asked for in several ways",
        "share",
        NOVEL_RECALL,
        metric="leak_rate",
        leak=True,
        rate=reported.leak_rate,
        reads=_ANSWER,
        column="novel recall",
        families="Prompt families",
    ),
    Audit(
        "format_shift",
        "Format-shift leak",
        "the same when the answer is to have a given format",
        "share",
        FORMAT_SHIFT,
        metric="leak_rate",
        leak=True,
        rate=reported.leak_rate,
        reads=_ANSWER,
        column="format shift",
        families="Output formats",
    ),
    Audit(
        "best_of_n",
        "Best-of-N leak",
        "rows of which at least one of N sampled answers leaks",
        "share",
        BEST_OF_N,
        metric="prompt_leak",
        leak=True,
        rate=reported.leak_rate,
        reads=("n", "sought", "samples"),
        column="best of N",
    ),
    Audit(
        "chain_of_clues",
        "Chain of clues, final turn",
        f"answers that leak after {CLUES} clues that give nothing away",
        "share",
        CHAIN_OF_CLUES,
        metric="leak_rate",
        leak=True,
        rate=reported.leak_rate_all_clues,
        reads=_ANSWER,
        column="chain of clues",
    ),
    Audit(
        "recognition",
        "Recognition",
        "right choices among six options, one in six by chance",
        "share",
        RECOGNITION,
        metric="recognition",
        leak=True,
        rate=reported.recognition,
        column="recognition",
    ),
    Audit(
        "probe",
        "Masked probe, last layer",
        "top-1 of a probe that reads the answer from the hidden state; one in six by chance",
        "share",
        PROBE,
        metric="top1",
        excess="top1_excess",
        leak=True,
    ),
    Audit(
        "logprob_shift",
        "Answer log-likelihood shift",
        "gold answers' log-probability, this arm minus the full arm, nats/token; 0: nothing moved",
        "nats",
        LOGPROB,
        metric="answer_logprob_shift",
        reads=("answer_logprob",),
        reference="full",
    ),
    Audit(
        "relearn",
        "Relearning, recovery",
        "leak on held-out forget authors after fine-tuning on the others, minus before, percentage points",
        "points",
        RELEARN,
        metric="recovery_delta",
        excess="excess",
        leak=True,
    ),
)
"""The rows of the main table."""

LEAKS = tuple(audit for audit in AUDITS if audit.rate and "leaked" in audit.rate.fields)
"""The audits that score answers for leaks."""
COUNTED = {audit.task: audit for audit in AUDITS if audit.column}
"""The audits that count answers row by row, by task."""


def fields_of(task: str) -> set[str]:
    """Fields of a task's records that the report reads."""
    own = [audit for audit in AUDITS if audit.task == task]
    return {name for audit in own for name in (*audit.reads, *(audit.rate.fields if audit.rate else ()))}


def name_of(task: str) -> str:
    """A task's name in a sentence."""
    return COUNTED[task].column if task in COUNTED else task.removeprefix("tofu_").replace("_", " ")


def _parts() -> list[Audit]:
    found = [
        (FORGET_QUALITY, "truth_ratio", "Truth ratio, forget rows", "mean of min(R, 1/R)"),
        (FORGET_QUALITY, "probability", "Probability of the gold answer, forget rows", "per token"),
        (FORGET_QUALITY, "rougeL_recall", "ROUGE-L recall, forget rows", "of the gold answer's words"),
    ]
    sets = dict(zip(UTILITY_SETS, ("Retain rows", "Real authors", "World facts"), strict=True))
    parts = dict(zip(reported.UTILITY_PARTS, ("probability", "ROUGE-L recall", "truth ratio"), strict=True))
    for name, label in sets.items():
        for part, words in parts.items():
            found.append((UTILITY, f"{name}_{part}", f"{label}, {words}", "part of model utility"))
    found += [
        (FORGET_QUALITY, "generations_empty", "Empty answers, forget rows", "near 0, or the model is broken"),
        (FORGET_QUALITY, "generations_repetitive", "Looping answers, forget rows", "near 0, or it is broken"),
        (FORGET_QUALITY, "generations_cut", "Answers at the token limit, forget rows", "near the full arm's"),
    ]
    return [
        Audit(f"{task}_{metric}", label, text, "share" if "generations" in metric else "number", task, metric)
        for task, metric, label, text in found
    ]


PARTS = tuple(_parts())
"""What the benchmark's two figures are made of."""


def _others() -> Iterator[Audit]:
    strength = "longest end of the gold answer that the model continues word for word, as a share of it"
    yield Audit(
        "prob_mean", "prob_mean", "correct / (correct + wrong); no truth ratio", "number", FORGET_QUALITY, "prob_mean"
    )
    for metric, label, text in (
        ("extraction_strength", "Extraction strength", f"{strength}; never below one token's share"),
        ("extraction_strength_no_floor", "Extraction strength without that floor", strength),
        ("exact_memorization", "Exact memorisation", "share of the gold answer's tokens that are the likeliest"),
    ):
        yield Audit(metric, label, text, "number", MEMORIZATION, metric)
    attacks = {
        "mia_loss": "LOSS",
        "mia_zlib": "ZLib",
        "mia_min_k": "Min-k",
        "mia_min_k_plus_plus": "Min-k++",
        "mia_reference": "reference",
        "mia_gradnorm": "gradient norm",
    }
    for metric, attack in attacks.items():
        yield Audit(metric, f"Membership AUC, {attack}", MEMBERSHIP_AUC, "number", MEMORIZATION, metric)
    for metric in ("mia_loss", "mia_zlib"):
        label = f"Membership AUC, {attacks[metric]} (lm_eval)"
        yield Audit(f"membership_{metric}", label, MEMBERSHIP_AUC, "number", MEMBERSHIP, metric)
    yield Audit(
        "privleak",
        "PrivLeak, percent",
        "Min-k's AUC against the retain arm's: negative still a member, positive over-forgotten",
        "number",
        MEMORIZATION,
        "privleak",
    )
    for metric, label in (("uds", "Unlearning depth score"), ("logit_lens", "Logit lens")):
        text = "0: the layers hold the facts as the full arm's do; 1: no more than the retain arm's"
        yield Audit(metric, label, text, "number", DEPTH, metric)


MEMBERSHIP_AUC = (
    "1: forget rows are likelier than unseen ones, so still memorised; 0.5: nobody can tell; near 0: over-forgotten, "
    "which gives them away as well"
)
OTHERS = tuple(_others())
"""Metrics of other codes: no verdict rests on them."""
