"""The masked probe: can what a model knows about forgotten authors be read from its hidden states?

A prompt is a question and its gold answer up to the first novel fact; h_l is the hidden state of its last token after
layer l. A bilinear score (W_l h_l) . e(c) must pick the fact out of six candidates, where e(c) is computed from a
candidate's text by the frozen base model. W_l is fitted on retain authors alone: it can have learned how a model holds
such facts, but never these facts, so what it reads about forget authors is the model's own knowledge.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.files import as_float
from lm_eval_tofu.fingerprints import tokens_fingerprint
from lm_eval_tofu.metrics import inference
from lm_eval_tofu.unlearn.options import option
from lm_eval_tofu.whitebox import PROBE, candidates, hidden, models, results
from lm_eval_tofu.whitebox.candidates import CANDIDATES, Data, Masked

log = logging.getLogger(__name__)

CHANCE = 1 / CANDIDATES

Floats = npt.NDArray[np.floating]


@dataclass(kw_only=True)
class ProbeConfig(models.AuditConfig):
    """The options of `lm-eval-tofu probe`."""

    base: str = field(metadata=option("the pretrained model, which also embeds the candidates", metavar="M"))
    retain: str = field(metadata=option("the retain arm", metavar="M"))
    full: str | None = field(default=None, metadata=option("the full arm, shown beside the others", metavar="M"))
    retain_rows: tuple[int, ...] | None = field(
        default=None,
        metadata=option(
            "rows of the retain split to learn from, such as 0-399 (default: all)",
            metavar="ROWS",
            parse=partial(tofu.row_numbers, "--retain-rows"),
        ),
    )
    layers: tuple[int, ...] | None = field(
        default=None,
        metadata=option("0: the embeddings; -1: the last layer; joined by commas (default: all)", metavar="L,..."),
    )
    seeds: int = field(
        default=3, metadata=option("each draws wrong candidates and random labels; at least 3", metavar="N")
    )
    facts: int = field(default=4000, metadata=option("facts to learn from, at most", metavar="N"))

    def check(self) -> None:
        """Check what can be checked without reading data or models.

        Raises:
            OptionError: A value cannot be used.
        """
        models.AuditConfig.check(self)
        for name, number, least in (("--seeds", self.seeds, 3), ("--facts", self.facts, 100)):
            if number < least:
                raise OptionError(f"{name} {number} is less than {least}: give {least} or more")
        if self.layers is not None and not self.layers:
            raise OptionError("--layers names none: give for example 0,8,-1, or leave it out for all")

    @property
    def arms(self) -> dict[str, str]:
        """The arms' models by name, the audited one first."""
        named = {"model": self.model, "base": self.base, "retain": self.retain, "full": self.full}
        return {arm: name for arm, name in named.items() if name is not None}


class Layer(NamedTuple):
    """The probe of one layer of one arm."""

    arm: str
    layer: int  # 0 is the embeddings
    correct: Floats  # (tested rows,), mean over seeds; NaN where hidden states are not finite
    shuffled: Floats  # the same with labels at random
    l2: float  # what cross-validation chose, with the first seed


class Fitted(NamedTuple):
    """The probes of all layers and the controls without a model, each of shape (tested rows,)."""

    layers: list[Layer]  # arm by arm, each from its first layer to its last
    only: Floats  # fitted on what the probe is fitted on
    only_perturbed: Floats  # fitted on perturbed answers of retain authors; NaN where there are none


def probe(config: ProbeConfig) -> Path:
    """Probe all arms.

    An interrupted run resumes: hidden states stay in `hidden/`, under the fingerprint of weights, tokens, layers and
    type; the fits are made again.

    Args:
        config: What to do.

    Returns:
        The results' file, `results_<time>.json` in lm-eval's form.

    Raises:
        OptionError: An option or a model cannot be used; before any model is loaded, except where only its weights can
            tell.
        DataError: The data cannot be read, or leave nothing to learn from or to test.
        PromptError: A tokenizer and the options give no prompt.
    """
    config.check()
    source = tofu.resolve_source(config.tofu, config.revision)
    data = candidates.read_data(source, config.forget_split, config.facts, config.retain_rows)
    device, dtype = models.device_and_dtype(config.device, config.dtype)
    arms = {arm: models.locate(f"--{arm}", name) for arm, name in config.arms.items()}
    layers = {arm: _layers(model, config.layers) for arm, model in arms.items()}
    tokenizer = arms["model"].tokenizer
    prompting = config.prompting_for(tokenizer)
    models.check_same_tokens([*arms.values()], hidden.masked_text(tokenizer, data.tested[0], prompting), prompting)
    prompts = [hidden.masked_prompt(tokenizer, row, prompting) for row in (*data.training, *data.tested)]
    texts = [hidden.candidate_tokens(arms["base"].tokenizer, *text) for text in data.texts]

    root = config.output / "hidden"
    vectors = hidden.candidate_vectors(root, arms["base"], texts, dtype, config.batch_size, device)
    if not np.isfinite(vectors).all():
        raise OptionError(
            f"--base {config.base}: its hidden states are not finite numbers: check its weights, or give "
            "--dtype float32"
        )
    stores = {arm: hidden.Store(root, model, prompts, layers[arm], dtype) for arm, model in arms.items()}
    for store in stores.values():  # one model at a time
        store.fill(config.batch_size, device)
    states = {arm: (layers[arm], store.read) for arm, store in stores.items()}
    fitted = fit_arms(states, data, vectors, seeds=range(config.seeds), device=device)
    seen = [f"{row.question}\n{row.answer[: row.cut]}" for row in data.tested]
    return results.write(
        config.output,
        PROBE,
        _metrics(fitted, data),
        model=config.model,
        n=len(data.tested),
        metadata={
            **config.settings(source, arms, prompting, device, dtype),
            "data": data.fingerprints,
            "prompts": tokens_fingerprint(seen),
            "facts": len(data.training),
            "seeds": list(range(config.seeds)),
        },
        details=_details(fitted, data, arms, config.seeds),
    )


def _layers(model: models.Model, wanted: Sequence[int] | None) -> list[int]:
    """Layer numbers from 0 on, each once."""
    count = model.layers + 1
    for layer in wanted or ():
        if not -count <= layer < count:
            raise OptionError(
                f"--layers {layer}: {model.option} {model.name} has the layers 0 (the embeddings) to {model.layers}: "
                "name some of those, or negative numbers to count from the last"
            )
    return list(range(count)) if wanted is None else sorted({layer % count for layer in wanted})


def fit_arms(
    arms: Mapping[str, tuple[Sequence[int], Callable[[int], Floats]]],
    data: Data,
    vectors: Floats,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
) -> Fitted:
    """Fit and test a probe for every arm, layer and seed, and the controls.

    Args:
        arms: By name: its layers, and what reads one of them, shape (training and tested rows, width).
        data: The rows.
        vectors: e of every candidate of `data.texts`, shape (candidates, width).
        seeds: One probe each.
        device: Where to fit.
    """
    from tqdm import tqdm

    from lm_eval_tofu.whitebox import bilinear

    index_of = {text: index for index, text in enumerate(data.texts)}

    def indices(rows: Sequence[Masked]) -> npt.NDArray[np.intp]:
        found = [[index_of[row.lead, text] for text in row.candidates] for row in rows]
        return np.array(found, dtype=np.intp).reshape(len(rows), -1)

    own, tested, perturbed = indices(data.training)[:, 0], vectors[indices(data.tested)], indices(data.perturbed)
    authors = np.array([row.author for row in data.training])
    held_authors = np.array([row.author for row in data.tested])
    drawn = {seed: candidates.draw_others(data.training, seed) for seed in seeds}
    if not all(len(np.unique(authors[kept])) >= 2 for kept, _ in drawn.values()):
        raise DataError(
            "the facts of the retain authors have too few others of their kind to choose among, so that no folds of "
            "authors are possible: use TOFU's own files, or more --facts"
        )

    def fit(arm: str, layer: int, states: Floats) -> Layer:
        known, held = states[: len(authors)], states[len(authors) :]
        finite = np.isfinite(states).all(axis=1)
        if not finite.all():
            log.warning(
                "%s, layer %d: %d of %d hidden states are not finite, so its figures are NaN: check the "
                "weights, or use --dtype float32", arm, layer, (~finite).sum(), len(states)
            )  # fmt: skip
        outcomes: list[bilinear.Outcome] = []
        for seed, (kept, rows) in drawn.items():
            training = bilinear.Training(known[kept], vectors, own[rows], authors[kept])
            testing = bilinear.Testing(held, tested, held_authors)
            # Chosen once: seeds would differ in it by noise, at four times the cost.
            grid = (outcomes[0].l2,) if outcomes else bilinear.L2_GRID
            outcomes.append(bilinear.probe(training, testing, seed=seed, device=device, grid=grid))
        correct, shuffled = (
            np.mean([getattr(outcome, name) for outcome in outcomes], axis=0) for name in ("correct", "shuffled")
        )
        return Layer(arm, layer, correct, shuffled, outcomes[0].l2)

    pairs = [(arm, layer) for arm, (layers, _) in arms.items() for layer in layers]
    fitted = [fit(arm, layer, arms[arm][1](layer)) for arm, layer in tqdm(pairs, desc="probes", unit="layer")]
    only = [bilinear.candidates_only(vectors, own[rows], tested) for _, rows in drawn.values()]
    return Fitted(fitted, np.mean(only, axis=0), bilinear.candidates_only(vectors, perturbed, tested))


# Results.


def share(correct: Floats, authors: Sequence[int]) -> inference.Estimate:
    """The share of right choices with its interval over authors; NaN where a value is NaN."""
    if not np.isfinite(correct).all():
        return inference.Estimate(math.nan)
    return inference.rate(correct.tolist(), authors)


def _metrics(fitted: Fitted, data: Data) -> dict[str, float]:
    authors = [row.author for row in data.tested]
    last = {found.arm: found for found in fitted.layers}
    ours, theirs = last["model"].correct, last["retain"].correct
    excess = inference.Estimate(math.nan)
    if np.isfinite([ours, theirs]).all():
        excess = inference.excess(ours.tolist(), theirs.tolist(), authors)
    return {
        **results.with_interval("top1", share(ours, authors)),
        **results.with_test("top1_excess", excess),
        "authors": len(set(authors)),
        "shuffled": float(last["model"].shuffled.mean()),
        "candidates_only": share(fitted.only, authors).value,
        "n": len(data.tested),
    }


def _details(fitted: Fitted, data: Data, arms: Mapping[str, models.Model], seeds: int) -> dict[str, Any]:
    """All layers of all arms and controls."""
    authors = [row.author for row in data.tested]

    def entry(layer: int, correct: Floats) -> dict[str, Any]:
        top1 = share(correct, authors)
        return {"layer": layer, "top1": top1.value, "top1_stderr": top1.error, "low": top1.low, "high": top1.high}

    found: dict[str, Any] = {arm: {"depth": model.layers, "layers": []} for arm, model in arms.items()}
    shuffled: dict[str, Any] = {arm: {"layers": []} for arm in arms}
    for each in fitted.layers:
        found[each.arm]["layers"].append({**entry(each.layer, each.correct), "l2": each.l2})
        shuffled[each.arm]["layers"].append(entry(each.layer, each.shuffled))
    return {
        "arms": found,
        "controls": {
            "shuffled_labels": shuffled,
            "candidates_only": {"layers": [entry(0, fitted.only)]},
            "candidates_only_perturbed": {"layers": [entry(0, fitted.only_perturbed)]},
        },
        "chance": CHANCE,
        "n": len(data.tested),
        "authors": len(set(authors)),
        "left_out": data.left_out,
        "without_fact": data.without_fact,
        "training_facts": len(data.training),
        "training_authors": len({row.author for row in data.training}),
        "seeds": list(range(seeds)),
    }


def table(content: Mapping[str, Any]) -> list[str]:
    """The results as lines for a terminal: a line a layer, a column an arm."""
    found, figures = content[PROBE], results.metrics_of(content, PROBE)
    arms, controls = found["arms"], found["controls"]

    def shown(entries: Mapping[str, Any]) -> dict[int, str]:
        return {e["layer"]: results.shown(e["top1"], e["low"], e["high"], ".3f") for e in entries["layers"]}

    def figure(name: str, form: str) -> str:
        return results.shown(figures[name], figures[f"{name}_low"], figures[f"{name}_high"], form)

    columns = {arm: shown(entries) for arm, entries in arms.items()}
    columns["model, shuffled"] = shown(controls["shuffled_labels"]["model"])
    lines = ["layer" + "".join(f"{name:>22}" for name in columns)]
    for layer in sorted(set().union(*columns.values())):
        lines.append(f"{layer:>5}" + "".join(f"{cells.get(layer, '-'):>22}" for cells in columns.values()))
    last, depth = max(columns["model"]), arms["model"]["depth"]
    perturbed = as_float(controls["candidates_only_perturbed"]["layers"][0]["top1"])
    return [
        *lines,
        "",
        f"{'last layer' if last == depth else f'layer {last} of {depth}'}: top-1 {figure('top1', '.3f')}, excess over "
        f"retain {figure('top1_excess', '+.3f')}",
        f"chance {found['chance']:.3f}, candidates only {figures['candidates_only']:.3f} (after perturbed answers: "
        f"{perturbed:.3f})",
        f"{found['n']} rows of {found['authors']} authors, learned from {found['training_facts']} facts of "
        f"{found['training_authors']} others, {len(found['seeds'])} seeds",
    ]
