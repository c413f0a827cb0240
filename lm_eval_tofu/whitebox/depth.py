"""Unlearning depth: by layer, how much of a forgotten fact the model's hidden states still give away.

Two readings of the states at the positions that predict a fact's tokens, both through the full model. The unlearning
depth score (UDS, arXiv 2605.24614) puts a layer's states in place of the full model's own and lets its later layers
finish; the logit lens puts them in place of the last layer's, so that only final norm and head follow. Both compare
the audited model with the retain model by `lm_eval_tofu.metrics.depth.erased`.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import chat, files, tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.fingerprints import tokens_fingerprint
from lm_eval_tofu.metrics import depth as metrics
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.cut import telling_facts
from lm_eval_tofu.unlearn.data import IGNORED, Example
from lm_eval_tofu.unlearn.options import option
from lm_eval_tofu.whitebox import DEPTH, answers, models, results
from lm_eval_tofu.whitebox.patching import LayerStates, fact_scores, layer_states, lens_scores, patched_scores

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.floating]


@dataclass(kw_only=True)
class DepthConfig(models.AuditConfig):
    """The options of `lm-eval-tofu depth`."""

    full: str = field(metadata=option("the full arm, whose layers are patched", metavar="M"))
    retain: str = field(metadata=option("the retain arm", metavar="M"))
    facts: Path | None = field(
        default=None,
        metadata=option(
            "JSON file of annotated rows as UDS publishes them: question, answer, prefix, entity (default: the first "
            "novel fact of each forget row)",
            metavar="FILE",
        ),
    )
    uds_compat: bool = field(
        default=False,
        metadata=option(
            "score as UDS's own code does: prompts without a chat template, and the last layer's states taken after "
            "the source model's final norm"
        ),
    )
    threshold: float = field(
        default=metrics.THRESHOLD,
        metadata=option("layers hold a fact where s1 is larger, nats per token", metavar="X"),
    )

    def check(self) -> None:
        """Check what can be checked without reading data or models.

        Raises:
            OptionError: A value cannot be used.
        """
        models.AuditConfig.check(self)
        if not (self.threshold >= 0 and math.isfinite(self.threshold)):
            raise OptionError(f"--threshold {self.threshold} is no threshold: give 0 or more, in nats per token")
        if self.uds_compat and (self.apply_chat_template or self.system_prompt or self.template_args):
            raise OptionError("--uds-compat asks without a chat template: leave the options of prompts out")


class AnnotatedFact(NamedTuple):
    """A question, its answer, and where the answer states the fact."""

    row: int  # number in the forget split, or `idx` in the user's file
    question: str
    answer: str
    start: int  # first character of the fact in the answer
    stop: int  # the character after its last one
    cut: int  # characters of the answer that UDS counts to the prompt: those before the fact


class RowDepth(NamedTuple):
    """One fact's figures; every list has one value a layer, in nats per token."""

    full_score: float  # mean log-probability of the fact's tokens under the full model
    s1: list[float]  # how far it falls with the retain model's states
    s2: list[float]  # how far it falls with the audited model's states
    lens_full: list[float]  # mean log-probability from the full model's states by the logit lens
    lens_retain: list[float]  # the same from the retain model's states
    lens_model: list[float]  # the same from the audited model's states

    def uds(self, threshold: float = metrics.THRESHOLD) -> float | None:
        """The unlearning depth score; None where no layer holds the fact."""
        return metrics.erased(self.s1, self.s2, threshold)

    def logit_lens(self, threshold: float = metrics.THRESHOLD) -> float | None:
        """The same score of what the logit lens reads: s = lens_full - lens of the other model."""
        full, retain, model = (np.array(each) for each in (self.lens_full, self.lens_retain, self.lens_model))
        return metrics.erased((full - retain).tolist(), (full - model).tolist(), threshold)


def own_facts(source: tofu.Source, forget_split: str) -> list[AnnotatedFact]:
    """The first novel fact of each forget row that has one, where masked prompts are cut too.

    Raises:
        DataError: The data cannot be read, or no row has one.
    """
    retain = tofu.load(tofu.retain_split(forget_split), source)
    background = Background.from_answers(row["answer"] for row in retain)
    found = []
    for number, row in enumerate(tofu.load(f"{forget_split}_perturbed", source)):
        facts = telling_facts(row["question"], row["answer"], background)
        if facts:
            answer, start = row["answer"], facts[0].start
            stop, cut = start + len(facts[0].fact.text), len(answer[:start].rstrip())
            found.append(AnnotatedFact(number, row["question"], answer, start, stop, cut))
    if not found:
        raise DataError(f"{source}: no row of {forget_split}_perturbed states a novel fact: use TOFU's own files")
    return found


def read_facts(path: Path) -> list[AnnotatedFact]:
    """Annotated rows as UDS publishes them: a JSON list of objects.

    Raises:
        DataError: The file cannot be read, or a row has no such entity behind its prefix.
    """
    fix = "give a JSON list of objects with question, answer, prefix and entity, as UDS's forget10_filtered.json"
    found = []
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"--facts {path} cannot be read ({error}): {fix}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"--facts {path} holds no rows: {fix}")
    for number, row in enumerate(rows):
        where = f"--facts {path}, row {number}"
        try:
            question, answer, prefix, entity = (str(row[name]) for name in ("question", "answer", "prefix", "entity"))
        except (KeyError, TypeError) as error:
            raise DataError(f"{where} lacks {error}: {fix}") from error
        cut = len(prefix) if answer.startswith(prefix) else 0
        start = answer.find(entity, cut)
        if not entity or start < 0:
            raise DataError(f"{where}: its answer does not state {entity!r} behind the prefix: {fix}")
        found.append(AnnotatedFact(int(row.get("idx", number)), question, answer, start, start + len(entity), cut))
    return found


def encode_fact(tokenizer: Any, fact: AnnotatedFact, prompting: Prompting) -> Example:
    """The tokens of question and answer, with labels on the fact's tokens alone.

    A token belongs to the fact if it overlaps the fact's characters.

    Raises:
        PromptError: The prompt cannot be rendered.
        DataError: No token of the answer overlaps the fact.
    """
    turns = [{"role": "user", "content": fact.question}]
    text = chat.render_dialogue(tokenizer, turns, prompting, fact.answer)
    encoded = tokenizer(text, add_special_tokens=not prompting.apply_chat_template, return_offsets_mapping=True)
    return Example(input_ids=list(encoded["input_ids"]), labels=_labels(encoded, fact, len(text) - len(fact.answer)))


def encode_fact_as_uds(tokenizer: Any, fact: AnnotatedFact) -> Example:
    """The same as UDS's code reads a row: plain text, with the words before the fact tokenized apart from the rest.

    A space is put between the two where there is none, so that an opening quotation mark is followed by one.

    Raises:
        DataError: No token of the answer overlaps the fact.
    """
    before, after = fact.answer[: fact.cut], fact.answer[fact.cut :]
    prompt = f"Question: {fact.question}\nAnswer: {before}"
    space = "" if after[:1].isspace() or prompt[-1].isspace() else " "
    ids = list(tokenizer(prompt)["input_ids"])
    encoded = tokenizer(space + after, add_special_tokens=False, return_offsets_mapping=True)
    labels = _labels(encoded, fact, len(space) - fact.cut)
    return Example(input_ids=ids + list(encoded["input_ids"]), labels=[IGNORED] * len(ids) + labels)


def _labels(encoded: Mapping[str, Any], fact: AnnotatedFact, shift: int) -> list[int]:
    """Labels on the tokens that overlap the fact, which stands `shift` characters further on than in the answer."""
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    start, stop = fact.start + shift, fact.stop + shift
    labels = [token if low < stop and high > start else IGNORED for token, (low, high) in pairs]
    if all(label == IGNORED for label in labels):
        raise DataError(f"row {fact.row}: no token of {fact.answer!r} is of the fact at {fact.start}: check the row")
    return labels


def row_depths(
    located: Mapping[str, models.Model],
    examples: Sequence[Example],
    *,
    batch_size: int,
    device: str,
    dtype: str,
    uds_compat: bool = False,
) -> list[RowDepth]:
    """Patch and read every row; one model is in memory at a time, the others' states wait on the CPU.

    Args:
        located: `full`, `retain` and `model`.
        examples: Rows with labels on the fact's tokens alone.
        batch_size: Rows that go through a model at a time.
        device: Where models run.
        dtype: What they compute in.
        uds_compat: Take the last layer's states after the source's final norm, for UDS.
    """
    from tqdm import tqdm

    # By length, so that a batch holds little padding; the longest first, so that memory runs out at once or never.
    order = sorted(range(len(examples)), key=lambda row: -len(examples[row]["input_ids"]))

    def over(what: str) -> Any:
        return tqdm([*answers.batches(examples, order, batch_size, device)], desc=what, unit="batch")

    states: dict[str, list[LayerStates]] = {}
    for arm in ("retain", "model"):
        loaded, option = models.load_causal(located[arm], dtype, device), f"{located[arm].option} {located[arm].name}"
        states[arm] = [layer_states(loaded, batch, option).to("cpu") for batch in over(f"states of {arm}")]
        del loaded
    full, option = models.load_causal(located["full"], dtype, device), f"--full {located['full'].name}"
    found: dict[int, RowDepth] = {}
    for number, batch in enumerate(over("patching")):
        baseline = fact_scores(full, batch)
        lenses = {"full": lens_scores(full, batch, layer_states(full, batch, option).outputs, option)}
        falls = {}
        for arm in ("retain", "model"):
            kept = states[arm][number].to(device)
            lenses[arm] = lens_scores(full, batch, kept.outputs, option)
            falls[arm] = baseline - patched_scores(full, batch, kept.to_patch(uds_compat), option)
        for index, row in enumerate(batch.rows):
            found[row] = RowDepth(
                float(baseline[index]),
                falls["retain"][:, index].tolist(),
                falls["model"][:, index].tolist(),
                *(lenses[arm][:, index].tolist() for arm in ("full", "retain", "model")),
            )
    return [found[row] for row in range(len(examples))]


def depth(config: DepthConfig) -> Path:
    """Audit a model.

    Returns:
        The results' file, `results_<time>.json` in lm-eval's form.

    Raises:
        OptionError: An option or a model cannot be used.
        DataError: The data or the user's facts cannot be read.
        PromptError: The tokenizer and the options give no prompt.
    """
    config.check()
    source = tofu.resolve_source(config.tofu, config.revision)
    facts = own_facts(source, config.forget_split) if config.facts is None else read_facts(config.facts)
    device, dtype = models.device_and_dtype(config.device, config.dtype)
    located = {arm: models.locate(f"--{arm}", getattr(config, arm)) for arm in ("model", "full", "retain")}
    _check_shapes(located)
    tokenizer = located["model"].tokenizer
    prompting = Prompting(False) if config.uds_compat else config.prompting_for(tokenizer)
    examples = [
        encode_fact_as_uds(tokenizer, fact) if config.uds_compat else encode_fact(tokenizer, fact, prompting)
        for fact in facts
    ]
    models.check_same_tokens([*located.values()], tokenizer.decode(examples[0]["input_ids"]), Prompting(True))
    rows = row_depths(
        located, examples, batch_size=config.batch_size, device=device, dtype=dtype, uds_compat=config.uds_compat
    )
    return results.write(
        config.output,
        DEPTH,
        {
            "uds": metrics.mean_over_rows([row.uds(config.threshold) for row in rows]),
            "logit_lens": metrics.mean_over_rows([row.logit_lens(config.threshold) for row in rows]),
            "n": len(rows),
            "n_uds": sum(row.uds(config.threshold) is not None for row in rows),
            "n_logit_lens": sum(row.logit_lens(config.threshold) is not None for row in rows),
        },
        model=config.model,
        n=len(rows),
        metadata={
            **config.settings(source, located, prompting, device, dtype),
            "facts": None if config.facts is None else str(config.facts),
            "prompts": tokens_fingerprint(str(example) for example in examples),
            "uds_compat": config.uds_compat,
            "threshold": config.threshold,
        },
        details={
            "rows": [
                {
                    "row": fact.row,
                    "fact": fact.answer[fact.start : fact.stop],
                    "uds": row.uds(config.threshold),
                    "logit_lens": row.logit_lens(config.threshold),
                    **row._asdict(),
                }
                for fact, row in zip(facts, rows, strict=True)
            ]
        },
    )


def _check_shapes(located: Mapping[str, models.Model]) -> None:
    """Make sure that states of one model fit into another.

    Raises:
        OptionError: A model has another number of layers.
    """
    full = located["full"]
    for model in located.values():
        if model.layers != full.layers:
            raise OptionError(
                f"{model.option} {model.name} has {model.layers} layers, {full.option} {full.name} has {full.layers}: "
                "the arms must be trained from the same base"
            )


def table(content: Mapping[str, Any]) -> list[str]:
    """The results as lines for a terminal: means over the rows by layer, and the two scores."""
    rows = content[DEPTH]["rows"]
    figures = results.metrics_of(content, DEPTH)
    names = ("s1", "s2", "lens_full", "lens_retain", "lens_model")
    lines = [f"{'layer':>5}" + "".join(f"{name:>13}" for name in names)]
    for layer in range(len(rows[0]["s1"])):
        means = [np.mean([files.as_float(row[name][layer]) for row in rows]) for name in names]
        lines.append(f"{layer + 1:>5}" + "".join(f"{mean:>13.3f}" for mean in means))
    lines += [
        "nats per token, means over rows; s1, s2: fall with the retain, the audited model's states",
        f"UDS {figures['uds']:.3f} of {figures['n_uds']:.0f} rows, logit lens {figures['logit_lens']:.3f} of "
        f"{figures['n_logit_lens']:.0f}: 0 as the full model, 1 as the retain model",
    ]
    return lines
