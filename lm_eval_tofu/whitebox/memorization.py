"""Memorisation of the forget rows and membership inference against rows that no arm has seen.

One forward pass a row gives the values of every answer token from which all figures of
`lm_eval_tofu.metrics.memorization` follow; stock lm_eval returns a sum over the tokens only. The definitions and their
tokens are open-unlearning's (commit d3d7cf9, `configs/eval/tofu_metrics`).
"""

import functools
import hashlib
import json
import logging
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import chat, files, tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.fingerprints import tokens_fingerprint
from lm_eval_tofu.metrics import inference
from lm_eval_tofu.metrics import memorization as metrics
from lm_eval_tofu.unlearn.data import IGNORED, Example, encode_rows
from lm_eval_tofu.unlearn.options import option
from lm_eval_tofu.whitebox import MEMORIZATION, VERSIONS, models, results
from lm_eval_tofu.whitebox.models import Model

log = logging.getLogger(__name__)

SHARD = 128
"""Rows in a file of token values: what an interrupted run has to do again at most."""
FORGET, HOLDOUT = "forget", "holdout"
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference", "mia_gradnorm")
"""The membership attacks by open-unlearning's names."""

Floats = npt.NDArray[np.floating]


@dataclass(kw_only=True)
class MemorizationConfig(models.AuditConfig):
    """The options of `lm-eval-tofu memorization`; the holdout split of the forget split's size is the control."""

    retain_reference: Path | None = field(
        default=None,
        metadata=option(
            "results of this command on the retain arm, or open-unlearning's log of it, for PrivLeak", metavar="PATH"
        ),
    )
    reference_model: str | None = field(
        default=None,
        metadata=option("whose loss the reference attack subtracts (default: no such attack)", metavar="M"),
    )
    gradient_norm: bool = field(
        default=False, metadata=option("also run the gradient-norm attack: a backward pass for each row")
    )
    k: float = field(
        default=metrics.MIN_K, metadata=option("share of tokens that Min-k and Min-k++ average over", metavar="X")
    )

    def check(self) -> None:
        """Check what can be checked without reading data or models.

        Raises:
            OptionError: A value cannot be used.
        """
        models.AuditConfig.check(self)
        if not 0 < self.k <= 1:
            raise OptionError(f"--k {self.k} is no share of an answer's tokens: give a number above 0, at most 1")


class RowScores(NamedTuple):
    """The figures of one row."""

    tokens: int  # T, the answer's tokens with the end of sequence
    exact_memorization: float  # `metrics.exact_memorization`
    extraction_strength: float  # as open-unlearning computes it, never below one token's share
    extraction_strength_no_floor: float  # the same, 0 where the last token is wrong
    scores: dict[str, float]  # by attack; higher where the row is less likely a member


def row_scores(values: Floats, text: str, k: float = metrics.MIN_K) -> RowScores:
    """All figures of a row that need one model only.

    Args:
        values: Shape (4, T): log-probability, whether it is the most likely token, mean and variance over the
            vocabulary of each answer token, end of sequence included (`lm_eval_tofu.whitebox.answers.TokenValues`).
        text: The T tokens decoded without special tokens.
        k: Share of tokens for Min-k and Min-k++.
    """
    logprobs, top, means, variances = np.asarray(values, dtype=float)
    is_top = (top[:-1] > 0).tolist()
    loss = metrics.loss(logprobs.tolist())
    normalised = metrics.normalised_logprobs(logprobs[:-1], means[:-1], variances[:-1])
    return RowScores(
        tokens=len(logprobs),
        exact_memorization=metrics.exact_memorization(is_top),
        extraction_strength=metrics.extraction_strength(is_top),
        extraction_strength_no_floor=metrics.extraction_strength(is_top, floor=False),
        scores={
            "mia_loss": loss,
            "mia_zlib": metrics.zlib_score(loss, text),
            "mia_min_k": metrics.min_k(logprobs[:-1].tolist(), k),
            "mia_min_k_plus_plus": metrics.min_k(normalised.tolist(), k),
        },
    )


def memorization(config: MemorizationConfig) -> Path:
    """Audit a model.

    An interrupted run resumes: token values stay in `tokens/`, under the fingerprint of weights, tokens and type.

    Returns:
        The results' file, `results_<time>.json` in lm-eval's form.

    Raises:
        OptionError: An option or a model cannot be used.
        DataError: The data cannot be read, or has no holdout rows.
        PromptError: The tokenizer and the options give no prompt.
        ReferenceRunError: The retain reference is missing, or of other rows, prompts or settings.
    """
    config.check()
    source = tofu.resolve_source(config.tofu, config.revision)
    names = {FORGET: f"{config.forget_split}_perturbed", HOLDOUT: config.forget_split.replace(FORGET, HOLDOUT)}
    data = {part: tofu.load(name, source) for part, name in names.items()}
    device, dtype = models.device_and_dtype(config.device, config.dtype)
    model = models.locate("--model", config.model)
    prompting = config.prompting_for(model.tokenizer)
    rows = [row for part in data.values() for row in part]
    examples = encode_rows(model.tokenizer, rows, prompting, model.context)
    metadata = {
        **config.settings(source, {"model": model}, prompting, device, dtype),
        "data": {name: tofu.fingerprint(source, name) for name in names.values()},
        "prompts": tokens_fingerprint(str(example) for example in examples),
        "k": config.k,
    }
    retain = None if config.retain_reference is None else retain_aucs(config.retain_reference, metadata)
    reference = None if config.reference_model is None else _reference(config.reference_model, model, examples)

    run = functools.partial(
        token_values,
        config.output / "tokens",
        examples=examples,
        batch_size=config.batch_size,
        device=device,
        dtype=dtype,
    )
    scored = [
        row_scores(values, chat.decoded_answer(model.tokenizer, _answer_ids(example)), config.k)
        for values, example in zip(run(model), examples, strict=True)
    ]
    if reference is not None:
        for row, values in zip(scored, run(reference), strict=True):
            row.scores["mia_reference"] = row.scores["mia_loss"] - metrics.loss(values[0].tolist())
    if config.gradient_norm:
        norms = gradient_norms(config.output / "tokens", model, examples, device, dtype)
        for row, norm in zip(scored, norms, strict=True):
            row.scores["mia_gradnorm"] = norm
    counts = len(data[FORGET])
    parts = {FORGET: scored[:counts], HOLDOUT: scored[counts:]}
    _name_not_finite(parts)
    return results.write(
        config.output,
        MEMORIZATION,
        figures(parts, retain),
        model=config.model,
        n=counts,
        metadata={
            **metadata,
            "reference_model": config.reference_model,
            "retain_reference": None if config.retain_reference is None else str(config.retain_reference),
        },
        details={
            "retain_auc": retain,
            "rows": {part: [_flat(index, row) for index, row in enumerate(rows)] for part, rows in parts.items()},
        },
    )


def figures(parts: Mapping[str, Sequence[RowScores]], retain: Mapping[str, float] | None = None) -> dict[str, float]:
    """What is reported of the rows' figures.

    Args:
        parts: Forget rows in the order of the forget split, and holdout rows.
        retain: AUCs of the retain arm by attack; None: no PrivLeak.
    """
    authors = [tofu.author_of(index) for index in range(len(parts[FORGET]))]
    found: dict[str, float] = {}
    for name in ("extraction_strength", "extraction_strength_no_floor", "exact_memorization"):
        values = [getattr(row, name) for row in parts[FORGET]]
        is_number = np.isfinite(values).all()
        found |= results.with_interval(
            name, inference.rate(values, authors) if is_number else inference.Estimate(math.nan)
        )
    for attack in ATTACKS:
        if attack in parts[FORGET][0].scores:
            score = metrics.auc(*([row.scores[attack] for row in parts[part]] for part in (FORGET, HOLDOUT)))
            found |= {attack: score, f"{attack}_separation": metrics.separation(score)}
    min_k, retain_auc = found["mia_min_k"], (retain or {}).get("mia_min_k", math.nan)
    if math.isnan(retain_auc):
        log.warning(
            "without --retain-reference, privleak and relative_difference are NaN: run this command on the retain arm "
            "and name its results; privleak_without_retain takes the AUC 0.5 instead, as open-unlearning does"
        )
    return {
        **found,
        "privleak": metrics.privleak(min_k, retain_auc),
        "relative_difference": metrics.relative_difference(min_k, retain_auc),
        "privleak_without_retain": metrics.privleak(min_k),
        "n": len(parts[FORGET]),
        "n_holdout": len(parts[HOLDOUT]),
    }


def token_values(
    root: Path, model: Model, *, examples: Sequence[Example], batch_size: int, device: str, dtype: str
) -> list[Floats]:
    """The values of each row's answer tokens, shape (4, T); stored in `root` and read from there if they exist."""
    from lm_eval_tofu.whitebox import answers

    load = functools.cache(lambda: models.load_causal(model, dtype, device))

    def compute(rows: Sequence[int]) -> dict[int, Floats]:
        found: dict[int, Floats] = {}
        for batch in answers.batches(examples, rows, batch_size, device):
            values = answers.split_rows(answers.token_values(load(), batch), batch.tokens)
            found |= {row: value.numpy() for row, value in zip(batch.rows, values, strict=True)}
        return found

    key = [*model.identity, dtype, [[*example["input_ids"], *example["labels"]] for example in examples]]
    return _stored(root, key, examples, compute, f"answers of {Path(model.name).name}")


def gradient_norms(root: Path, model: Model, examples: Sequence[Example], device: str, dtype: str) -> list[float]:
    """The gradient-norm attack (Wang et al. 2024, arXiv 2402.17012): one backward pass a row; stored as `token_values`.

    The loss is the mean of -log p over the first T - 1 answer tokens; the score is the plain mean over parameter
    tensors of the 2-norm of their gradient (tied embeddings once), not the norm of the whole gradient. open-unlearning
    has the model in training mode, where dropout, if there is any, is random; here it is in evaluation mode.
    """
    from lm_eval_tofu.whitebox import answers

    load = functools.cache(lambda: models.load_causal(model, dtype, device))
    without_end = [Example(input_ids=each["input_ids"][:-1], labels=each["labels"][:-1]) for each in examples]

    def compute(rows: Sequence[int]) -> dict[int, Floats]:
        return {
            batch.rows[0]: np.array([answers.gradient_norm(load(), batch)])
            for batch in answers.batches(without_end, rows, 1, device)
        }

    key = ["gradient norm", *model.identity, dtype, [[*row["input_ids"], *row["labels"]] for row in examples]]
    return [float(value[0]) for value in _stored(root, key, examples, compute, "gradient norms")]


def _answer_ids(example: Example) -> list[int]:
    return [label for label in example["labels"] if label != IGNORED]


def _stored(
    root: Path,
    key: Any,
    examples: Sequence[Example],
    compute: Callable[[Sequence[int]], dict[int, Floats]],
    what: str,
) -> list[Floats]:
    """Arrays by row, computed in shards that are kept on disk under the fingerprint of `key`."""
    from tqdm import tqdm

    folder = root / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    # By length, so that a batch holds little padding; the longest first, so that memory runs out at once or never.
    order = sorted(range(len(examples)), key=lambda row: -len(examples[row]["input_ids"]))
    found: dict[int, Floats] = {}
    for start in tqdm(range(0, len(order), SHARD), desc=what, unit="shard"):
        rows, path = order[start : start + SHARD], folder / f"{start // SHARD:05}.npz"
        values = _read_shard(path)
        if values.keys() != set(rows):
            values = compute(rows)
            with files.replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **{str(row): value for row, value in values.items()})
        found |= values
    return [found[row] for row in range(len(examples))]


def _read_shard(path: Path) -> dict[int, Floats]:
    """Arrays by row; empty where the file does not exist or is damaged."""
    try:
        with np.load(path) as stored:
            return {int(row): stored[row] for row in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def _reference(name: str, model: Model, examples: Sequence[Example]) -> Model:
    """The reference model of the attack of that name.

    Raises:
        OptionError: It reads other tokens, or has too short a context.
    """
    found = models.locate("--reference-model", name)
    text = model.tokenizer.decode(examples[0]["input_ids"])
    models.check_same_tokens([model, found], text, Prompting(apply_chat_template=True))
    longest = max(len(example["input_ids"]) for example in examples)
    if found.context is not None and longest > found.context:
        raise OptionError(
            f"--reference-model {name}: its context of {found.context} tokens is shorter than a row's {longest}: "
            "use a model with a longer context"
        )
    return found


def retain_aucs(path: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """The retain arm's AUCs by attack.

    Args:
        path: A results file or directory of `lm-eval-tofu memorization`, or open-unlearning's `TOFU_EVAL.json`, whose
            rows and prompts are not recorded and so are not compared.
        settings: Metadata of the present run; what is the same in both must be equal.

    Raises:
        ReferenceRunError: There is none, or it was made with other rows, prompts or settings.
    """
    option = f"--retain-reference {path}"
    fix = f"run 'lm-eval-tofu memorization' on the retain arm with --forget-split {settings['forget_split']}"
    if not path.exists():
        raise ReferenceRunError(f"{option} does not exist: {fix}")
    candidates = [path] if path.is_file() else [*reversed(files.results_files(path))]
    others: set[str] = set()
    for file in candidates:
        content = files.read_json(file, fix, ReferenceRunError)
        if isinstance(content.get("mia_min_k"), dict):
            return {name: float(content[name]["agg_value"]) for name in ATTACKS if name in content}
        if MEMORIZATION in content.get("results", {}):
            _check_settings(option, content, settings, fix)
            found = results.metrics_of(content, MEMORIZATION)
            return {name: found[name] for name in ATTACKS if name in found}
        others |= set(content.get("results", {}))
    what = f"of {', '.join(sorted(others))}" if others else "of no task"
    raise ReferenceRunError(f"{option} holds results {what} and none of {MEMORIZATION}: {fix}")


def _check_settings(option: str, content: Mapping[str, Any], settings: Mapping[str, Any], fix: str) -> None:
    theirs = content["configs"][MEMORIZATION]["metadata"]
    ours = {"version": VERSIONS[MEMORIZATION], **settings}
    for name in ("version", "forget_split", "k", "prompting", "data", "prompts"):
        mine = files.as_json_values(ours[name])
        if theirs.get(name) != mine:
            raise ReferenceRunError(f"{option}: its {name} is {theirs.get(name)!r}, this run's is {mine!r}: {fix}")


def _name_not_finite(parts: Mapping[str, Sequence[RowScores]]) -> None:
    for part, rows in parts.items():
        bad = [index for index, row in enumerate(rows) if not np.isfinite(list(row.scores.values())).all()]
        if bad:
            log.warning(
                "%s rows %s have scores that are not finite, so their figures are NaN: check the weights, or use "
                "--dtype float32",
                part,
                ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else ""),
            )


def _flat(index: int, row: RowScores) -> dict[str, Any]:
    values = row._asdict()
    return {"index": index, **values.pop("scores"), **values}


def table(content: Mapping[str, Any]) -> list[str]:
    """The results as lines for a terminal."""
    found = results.metrics_of(content, MEMORIZATION)
    lines = []
    for name in ("extraction_strength", "extraction_strength_no_floor", "exact_memorization"):
        lines.append(f"{name:<30}{results.shown(found[name], found[f'{name}_low'], found[f'{name}_high'], '.3f')}")
    lines.append("AUC of holdout against forget: 1 memorised, 0.5 no difference, 0 over-forgotten")
    lines += [f"{name:<30}{found[name]:.3f}" for name in ATTACKS if name in found]
    retain = content[MEMORIZATION]["retain_auc"]
    if retain is None:
        lines.append(
            f"{'privleak':<30}no --retain-reference (against AUC 0.5: {found['privleak_without_retain']:+.1f} %)"
        )
    else:
        lines.append(f"{'privleak':<30}{found['privleak']:+.1f} % (AUC of the retain arm: {retain['mia_min_k']:.3f})")
    return lines
