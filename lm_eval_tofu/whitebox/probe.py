"""The masked probe: can what a model knows about forgotten authors be read from its hidden states?

A prompt is a question and its gold answer up to the first novel fact; h_l is the hidden state of its last token after
layer l. A bilinear score (W_l h_l) . e(c) must pick the fact out of six candidates, e(c) being what a frozen base model
makes of a candidate's text. W_l is fitted on retain authors alone, so it can have learned how a model holds such facts,
never these facts; what it then reads of forget authors, the model knows.
"""

import argparse
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import chat, files, tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.evaluation import check_device
from lm_eval_tofu.metrics import inference
from lm_eval_tofu.metrics.facts import Background
from lm_eval_tofu.unlearn.options import add_option, add_switch, parse_template_args
from lm_eval_tofu.whitebox import PROBE_VERSION, candidates, hidden
from lm_eval_tofu.whitebox.candidates import CANDIDATES, Masked

log = logging.getLogger(__name__)

TASK = "tofu_probe"
VERSION = PROBE_VERSION
CHANCE = 1 / CANDIDATES

_BEFORE_CANDIDATE = "Answer:"
"""What the base model reads before a candidate: many models spend the first position of all on no content."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """What the probe is told; the command line's options have the same names.

    Attributes:
        model: The model to audit, a directory or a hub name.
        base: The pretrained model; it also embeds the candidates.
        retain: The retain arm.
        full: The full arm, if it is to be shown too.
        output: Directory of the results, and of the hidden states in `hidden/`.
        tofu: Data source, as `lm_eval_tofu.tofu.resolve_source`.
        revision: The data's revision on the hub.
        forget_split: Whose rows are tested.
        retain_rows: Rows of the retain split to learn from, from 0; None: all.
        layers: Layers to probe, 0 (the embeddings) to L; negative ones count from the end; None: all.
        seeds: Each draws other wrong candidates to learn from and other random labels; the first one draws the folds.
        facts: Facts of retain authors to learn from, at most.
        batch_size: Sequences that go through a model at a time.
        device: Where models run and probes are fitted; None: a GPU if there is one.
        dtype: What models compute in; `auto`: bfloat16 on a GPU, float32 otherwise.
        apply_chat_template: None: if the tokenizer has one.
        system_prompt: The system turn; None leaves it to the template.
        template_args: Further variables for the chat template.
    """

    model: str
    base: str
    retain: str
    full: str | None = None
    output: Path
    tofu: str | None = None
    revision: str | None = None
    forget_split: str = "forget10"
    retain_rows: tuple[int, ...] | None = None
    layers: Sequence[int] | None = None
    seeds: int = 3
    facts: int = 4000
    batch_size: int = 16
    device: str | None = None
    dtype: str = "auto"
    apply_chat_template: bool | None = None
    system_prompt: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check what can be checked without reading data or models.

        Raises:
            OptionError: A value cannot be used.
        """
        tofu.retain_split(self.forget_split)
        for option, number, least in (
            ("--seeds", self.seeds, 3),
            ("--facts", self.facts, 100),
            ("--batch-size", self.batch_size, 1),
        ):
            if number < least:
                raise OptionError(f"{option} {number} is less than {least}: give {least} or more")
        if self.dtype not in hidden.DTYPES:
            raise OptionError(f"--dtype {self.dtype!r} is unknown: use one of {', '.join(hidden.DTYPES)}")
        if self.layers is not None and not self.layers:
            raise OptionError("--layers names none: give for example '0 8 -1', or leave it out for all")
        if self.output.exists() and not self.output.is_dir():
            raise OptionError(f"--output {self.output} is a file: name a directory")

    @property
    def arms(self) -> dict[str, str]:
        """The arms' models by name, the audited one first."""
        named = {"model": self.model, "base": self.base, "retain": self.retain, "full": self.full}
        return {arm: name for arm, name in named.items() if name is not None}


class Data(NamedTuple):
    """What is learned from and what is tested.

    Attributes:
        training: Facts of retain authors; each row's own fact is its only candidate.
        tested: Rows of forget authors with six candidates.
        perturbed: Rows of retain authors with six candidates, for a control.
        left_out: Forget rows with a novel fact and no counterpart of it in the perturbed answers.
        without_fact: Forget rows without a novel fact.
        fingerprints: Of the configurations that were read.
    """

    training: list[Masked]
    tested: list[Masked]
    perturbed: list[Masked]
    left_out: int
    without_fact: int
    fingerprints: dict[str, str]


class Layer(NamedTuple):
    """How well one layer of one arm can be read.

    Attributes:
        layer: Its number; 0 is the embeddings.
        top1: Share of forget rows whose true candidate scores highest, mean over seeds.
        top1_stderr: Its standard error, clustered by author; NaN where there is no interval, or no row differs.
        low: Lower limit of its 95 % interval over authors (`inference.rate`).
        high: Upper limit.
    """

    layer: int
    top1: float
    top1_stderr: float
    low: float
    high: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu probe`."""
    parser.add_argument("--model", required=True, metavar="M", help="directory or hub name of the model to audit")
    parser.add_argument("--base", required=True, metavar="B", help="the pretrained model")
    parser.add_argument("--retain", required=True, metavar="R", help="the retain arm")
    parser.add_argument("--full", metavar="F", help="the full arm, to be shown beside")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="directory of the results")
    parser.add_argument("--tofu", metavar="SOURCE", help="mini, a directory or a hub id")
    parser.add_argument("--revision", metavar="R", help="the data's revision on the hub")
    add_option(parser, "--forget-split", default="forget10", metavar="SPLIT", help="default: %(default)s")
    add_option(
        parser,
        "--retain-rows",
        metavar="ROWS",
        help="rows of the retain split to learn from, such as 0-399 (default: all)",
    )
    parser.add_argument(
        "--layers", nargs="+", type=int, metavar="L", help="0: the embeddings; -1: the last layer (default: all)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="at least 3 (default: %(default)s)")
    parser.add_argument(
        "--facts", type=int, default=4000, metavar="N", help="facts to learn from, at most (default: %(default)s)"
    )
    add_option(parser, "--batch-size", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", default="auto", help=f"one of {', '.join(hidden.DTYPES)} (default: %(default)s)")
    add_switch(parser, "--no-chat-template", "ask 'Question: ...\\nAnswer:' although the tokenizer has a template")
    add_option(parser, "--system-prompt", metavar="TEXT", help="content of the system turn")
    add_option(parser, "--template-args", metavar="JSON", help="variables for the chat template")


def config_of(args: argparse.Namespace) -> ProbeConfig:
    """The configuration that `add_arguments` parsed.

    Raises:
        OptionError: `--template-args` is not a JSON object.
    """
    names = [name for name in ProbeConfig.__dataclass_fields__ if hasattr(args, name)]
    values = {name: getattr(args, name) for name in names}
    values["apply_chat_template"] = False if args.no_chat_template else None
    values["template_args"] = parse_template_args(args.template_args)
    if args.retain_rows is not None:
        values["retain_rows"] = tofu.row_numbers("--retain-rows", args.retain_rows)
    return ProbeConfig(**values)


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Probe all arms and write `results_<time>.json` into the output directory.

    A run that was interrupted goes on where it stopped: hidden states stay in `hidden/`, under the fingerprint of
    weights, tokens, layers and type; the fits are made anew.

    Args:
        config: What to do.

    Returns:
        What was written.

    Raises:
        OptionError: An option or a model cannot be used; before any model is loaded, except where only its weights can
            tell.
        DataError: The data cannot be read, or leave nothing to learn from or to test.
        PromptError: A tokenizer and the options give no prompt.
    """
    config.check()
    source = tofu.resolve_source(config.tofu, config.revision)
    data = read_data(source, config.forget_split, config.facts, config.retain_rows)
    device, dtype = _machine(config)
    models = {arm: hidden.locate(f"--{arm}", name) for arm, name in config.arms.items()}
    layers = {arm: _layers(model, config.layers) for arm, model in models.items()}
    tokenizers = {arm: _tokenizer(model) for arm, model in models.items()}
    prompting = _prompting(config, tokenizers["model"])
    _check_tokenizers(config, tokenizers, data.tested[0], prompting)
    rows = [*data.training, *data.tested]
    prompts = [masked_prompt(tokenizers["model"], row, prompting) for row in rows]
    texts = _texts(data)
    embedded = [candidate_tokens(tokenizers["base"], *text) for text in texts]

    root = config.output / "hidden"
    vectors = candidate_vectors(root, models["base"], embedded, dtype, config.batch_size, device)
    if not np.isfinite(vectors).all():
        raise OptionError(
            f"--base {config.base}: its hidden states are not finite numbers: check its weights, or give "
            "--dtype float32"
        )
    stores = {arm: hidden.Store(root, models[arm], prompts, layers[arm], dtype) for arm in models}
    for store in stores.values():  # one model at a time
        store.fill(config.batch_size, device)
    fitted = fit_arms(
        {arm: (layers[arm], store.read) for arm, store in stores.items()},
        data,
        vectors,
        {text: place for place, text in enumerate(texts)},
        seeds=range(config.seeds),
        device=device,
    )
    content = _results(config, source, data, models, fitted, prompting, device, dtype)
    _write(config.output, content)
    return content


def read_data(source: tofu.Source, forget_split: str, facts: int, retain_rows: Sequence[int] | None = None) -> Data:
    """Mask the rows: the forget split's to be tested, the retain split's to be learned from.

    Args:
        source: Where the data comes from.
        forget_split: A forget split.
        facts: Facts to learn from, at most.
        retain_rows: Rows of the retain split to learn from; None: all.

    Raises:
        DataError: The data cannot be read, or leave nothing to learn from or to test.
        OptionError: The retain split has fewer rows.
    """
    retain = tofu.retain_split(forget_split)
    names = ("full", retain, f"{forget_split}_perturbed", "retain_perturbed")
    full, kept, forget, perturbed = (tofu.load(name, source) for name in names)
    author_of = {row["question"]: place // tofu.ROWS_PER_AUTHOR for place, row in enumerate(full)}
    for name, rows in zip(names[1:], (kept, forget, perturbed), strict=True):
        unknown = next((row["question"] for row in rows if row["question"] not in author_of), None)
        if unknown is not None:
            raise DataError(f"{source}: {name} asks {unknown[:60]!r}, which full does not: fetch {tofu.HUB_ID} anew")
    background = Background.from_answers(row["answer"] for row in kept)
    tested, left_out = candidates.probe_rows(forget, [author_of[row["question"]] for row in forget], background)
    tested = [row for row in tested if len(row.candidates) == CANDIDATES]
    if not tested:
        raise DataError(
            f"{source}: no row of {forget_split}_perturbed has a novel fact and {CANDIDATES - 1} perturbed answers "
            "that state another one in its place: the probe has nothing to choose from; use TOFU's own files"
        )
    if retain_rows is not None:
        tofu.check_row_numbers("--retain-rows", retain_rows, retain, len(kept))
        kept = [kept[number] for number in retain_rows]
    # Not only the tested rows' authors: half an author may be left in the retain split of a cut data set.
    forgotten = {author_of[row["question"]] for row in forget}
    kept = [row for row in kept if author_of[row["question"]] not in forgotten]
    training = candidates.training_rows(kept, [author_of[row["question"]] for row in kept], background, facts)
    if len({row.author for row in training}) < 2:
        raise DataError(
            f"{source}: {retain} leaves fewer than two authors with facts to learn from: no folds of authors are "
            "possible; use TOFU's own files, or more --retain-rows"
        )
    others = [row for row in perturbed if author_of[row["question"]] not in forgotten]
    control, _ = candidates.probe_rows(others, [author_of[row["question"]] for row in others], background)
    return Data(
        training,
        tested,
        [row for row in control if len(row.candidates) == CANDIDATES],
        left_out,
        len(forget) - len(tested) - left_out,
        {name: tofu.fingerprint(source, name) for name in names},
    )


def masked_prompt(tokenizer: Any, row: Masked, prompting: Prompting) -> hidden.Tokens:
    """The tokens of a question and its answer before the fact, of which the last one's state is probed.

    They are the beginning of the tokens that are trained on and scored: a token that holds the fact's beginning
    together with what comes before is not among them.

    Raises:
        PromptError: As `lm_eval_tofu.chat.encode_answer`.
    """
    encoded = chat.encode_answer(tokenizer, row.question, row.answer, prompting)
    whole = encoded.prompt_ids + encoded.answer_ids
    opening = row.answer[: row.cut].rstrip()
    turns = [{"role": "user", "content": row.question}]
    cut = chat.token_ids(tokenizer, chat.render_dialogue(tokenizer, turns, prompting, opening), prompting)
    length = max(_common(whole, cut), len(encoded.prompt_ids))
    return hidden.Tokens(tuple(whole[:length]), length - 1)


def candidate_tokens(tokenizer: Any, lead: str, text: str) -> hidden.Tokens:
    """A candidate's tokens as the base model reads them, after a word that is no part of the mean."""
    before = f"{_BEFORE_CANDIDATE} {lead}" if lead else _BEFORE_CANDIDATE
    ids = list(tokenizer(f"{_BEFORE_CANDIDATE} {lead}{text}")["input_ids"])
    start = min(_common(ids, list(tokenizer(before)["input_ids"])), len(ids) - 1)
    return hidden.Tokens(tuple(ids), start)


def candidate_vectors(
    root: Path, base: hidden.Model, candidates: Sequence[hidden.Tokens], dtype: str, batch_size: int, device: str
) -> Floats:
    """What the base model makes of candidates: the embedding of the first token, then the means over all tokens.

    The first token stands apart: it is what a last layer has just before it, and in the mean over a long candidate it
    drowns.

    Returns:
        Shape (candidates, 3 * width): the first token's embedding, the mean embedding, the mean of the last layer.
    """
    begun = [hidden.Tokens(tokens.ids[: tokens.start + 1], tokens.start) for tokens in candidates]
    parts = []
    for sequences, layers in ((begun, [0]), (candidates, [0, base.layers])):
        store = hidden.Store(root, base, sequences, layers, dtype)
        store.fill(batch_size, device)
        parts += [store.read(layer) for layer in layers]
    return np.concatenate(parts, axis=1)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest beginning that two lists share."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def _texts(data: Data) -> list[tuple[str, str]]:
    """Every different candidate, as lead and text."""
    rows = (*data.training, *data.tested, *data.perturbed)
    return list(dict.fromkeys((row.lead, text) for row in rows for text in row.candidates))


class Fitted(NamedTuple):
    """What the probes found.

    Attributes:
        correct: By arm and layer: shape (tested rows,), mean over seeds.
        shuffled: The same with labels at random.
        l2: By arm and layer: what cross-validation chose, with the first seed.
        only: The control without a model, fitted on what the probe is fitted on: shape (tested rows,).
        only_perturbed: The same, fitted on perturbed answers of retain authors; NaN where there are none.
    """

    correct: dict[str, dict[int, Floats]]
    shuffled: dict[str, dict[int, Floats]]
    l2: dict[str, dict[int, float]]
    only: Floats
    only_perturbed: Floats


def fit_arms(
    arms: Mapping[str, tuple[Sequence[int], Callable[[int], Floats]]],
    data: Data,
    vectors: Floats,
    place_of: Mapping[tuple[str, str], int],
    *,
    seeds: Sequence[int],
    device: str = "cpu",
) -> Fitted:
    """Fit and test a probe for every arm, layer and seed, and the controls.

    Args:
        arms: By name: its layers, and what reads one of them, shape (training and tested rows, width).
        data: The rows.
        vectors: e of every candidate, shape (candidates, width).
        place_of: Lead and text of a candidate to its place in `vectors`.
        seeds: One probe each.
        device: Where to fit.
    """
    from tqdm import tqdm

    from lm_eval_tofu.whitebox import bilinear

    def places(rows: Sequence[Masked]) -> npt.NDArray[np.intp]:
        found = [[place_of[row.lead, text] for text in row.candidates] for row in rows]
        return np.array(found, dtype=np.intp).reshape(len(rows), -1)

    own, tested, perturbed = places(data.training)[:, 0], places(data.tested), places(data.perturbed)
    authors = np.array([row.author for row in data.training])
    held_authors = np.array([row.author for row in data.tested])
    bilinear.check_authors(authors, held_authors)
    drawn = {seed: candidates.draw_others(data.training, seed) for seed in seeds}
    if not all(len(np.unique(authors[kept])) >= 2 for kept, _ in drawn.values()):
        raise DataError(
            "the facts of the retain authors have too few others of their kind to choose among, so that no folds of "
            "authors are possible: use TOFU's own files, or more --facts"
        )
    correct: dict[str, dict[int, Floats]] = {}
    shuffled: dict[str, dict[int, Floats]] = {}
    l2: dict[str, dict[int, float]] = {}
    total = sum(len(layers) for layers, _ in arms.values())
    with tqdm(total=total, desc="probes", unit="layer") as bar:
        for arm, (layers, read) in arms.items():
            correct[arm], shuffled[arm], l2[arm] = {}, {}, {}
            for layer in layers:
                states = read(layer)
                known, held = states[: len(authors)], states[len(authors) :]
                if not np.isfinite(states).all():
                    bad = int((~np.isfinite(states)).any(axis=1).sum())
                    log.warning(
                        "%s, layer %d: %d of %d hidden states are not finite, so its figures are NaN: check the "
                        "weights, or use --dtype float32", arm, layer, bad, len(states)
                    )  # fmt: skip
                outcomes: list[bilinear.Outcome] = []
                grid: Sequence[float] = bilinear.L2_GRID
                for seed, (kept, rows) in drawn.items():
                    outcome = bilinear.probe(
                        bilinear.Training(known[kept], vectors, own[rows], authors[kept]),
                        bilinear.Testing(held, vectors[tested], held_authors),
                        seed=seed,
                        device=device,
                        grid=grid,
                    )
                    outcomes.append(outcome)
                    grid = [outcome.l2]  # chosen once: seeds would differ in it by noise, at four times the cost
                correct[arm][layer] = np.mean([outcome.correct for outcome in outcomes], axis=0)
                shuffled[arm][layer] = np.mean([outcome.shuffled for outcome in outcomes], axis=0)
                l2[arm][layer] = outcomes[0].l2
                bar.update()
    only = [bilinear.candidates_only(vectors, own[rows], vectors[tested]) for _, rows in drawn.values()]
    return Fitted(
        correct,
        shuffled,
        l2,
        np.mean(only, axis=0),
        bilinear.candidates_only(vectors, perturbed, vectors[tested]),
    )


def summarise(layer: int, correct: Floats, authors: Sequence[int]) -> Layer:
    """The share of right choices with its uncertainty over authors; NaN where a value is NaN."""
    estimate = _rate(correct, authors)
    return Layer(layer, estimate.value, estimate.error, estimate.low, estimate.high)


def _rate(correct: Floats, authors: Sequence[int]) -> inference.Estimate:
    if not np.isfinite(correct).all():
        return inference.Estimate(math.nan)
    return inference.rate(correct.tolist(), authors)


def _results(
    config: ProbeConfig,
    source: tofu.Source,
    data: Data,
    models: Mapping[str, hidden.Model],
    fitted: Fitted,
    prompting: Prompting,
    device: str,
    dtype: str,
) -> dict[str, Any]:
    """The file's content, in the form of lm_eval's results."""
    authors = [row.author for row in data.tested]
    entry = functools.partial(_entry, authors=authors)
    arms = {
        arm: {
            "depth": models[arm].layers,
            "layers": [{**entry(layer, rows), "l2": fitted.l2[arm][layer]} for layer, rows in layers.items()],
        }
        for arm, layers in fitted.correct.items()
    }
    shuffled = {
        arm: {"layers": [entry(layer, rows) for layer, rows in layers.items()]}
        for arm, layers in fitted.shuffled.items()
    }
    last = {arm: layers[max(layers)] for arm, layers in fitted.correct.items()}
    top = _rate(last["model"], authors)
    excess = inference.Estimate(math.nan)
    if np.isfinite([last["model"], last["retain"]]).all():
        excess = inference.excess(last["model"].tolist(), last["retain"].tolist(), authors)
    only = entry(0, fitted.only)
    figures = {
        "top1": top.value,
        "top1_low": top.low,
        "top1_high": top.high,
        "top1_excess": excess.value,
        "top1_excess_low": excess.low,
        "top1_excess_high": excess.high,
        "top1_excess_error": excess.error,
        "top1_excess_p_value": excess.p_value,
        "authors": len(set(authors)),
        "shuffled": float(fitted.shuffled["model"][max(fitted.shuffled["model"])].mean()),
        "candidates_only": only["top1"],
        "n": len(data.tested),
    }
    metadata = {
        "version": VERSION,
        "forget_split": config.forget_split,
        "tofu": str(source),
        "models": config.arms,
        "weights": {arm: model.weights for arm, model in models.items()},
        "data": data.fingerprints,
        "prompts": hidden.digest([asdict(prompting), [[row.question, row.answer[: row.cut]] for row in data.tested]]),
        "prompting": asdict(prompting),
        "facts": len(data.training),
        "seeds": list(range(config.seeds)),
        "dtype": dtype,
        "device": device,
        "batch_size": config.batch_size,
    }
    return {
        "results": {TASK: {"alias": TASK, **{f"{name},none": value for name, value in figures.items()}}},
        "configs": {TASK: {"task": TASK, "metadata": metadata}},
        "versions": {TASK: VERSION},
        "n-shot": {TASK: 0},
        "n-samples": {TASK: {"original": len(data.tested), "effective": len(data.tested)}},
        "model_name": config.model,
        "date": time.time(),
        TASK: {
            "arms": arms,
            "controls": {
                "shuffled_labels": shuffled,
                "candidates_only": {"layers": [only]},
                "candidates_only_perturbed": {"layers": [entry(0, fitted.only_perturbed)]},
            },
            "chance": CHANCE,
            "n": len(data.tested),
            "authors": len(set(authors)),
            "left_out": data.left_out,
            "without_fact": data.without_fact,
            "training_facts": len(data.training),
            "training_authors": len({row.author for row in data.training}),
            "seeds": list(range(config.seeds)),
        },
    }


def _entry(layer: int, correct: Floats, authors: Sequence[int]) -> dict[str, Any]:
    return dict(summarise(layer, correct, authors)._asdict())


def _write(output: Path, content: Mapping[str, Any]) -> Path:
    """Write the results under lm_eval's own kind of name."""
    moment = datetime.fromtimestamp(content["date"]).isoformat().replace(":", "-")
    path = output / f"results_{moment}.json"
    files.write_json(path, content)
    log.info("%s is written", path)
    return path


def table(content: Mapping[str, Any]) -> list[str]:
    """The results as lines for a terminal: a line a layer, a column an arm."""
    found = content[TASK]
    arms = list(found["arms"])
    shown = {arm: {each["layer"]: each for each in found["arms"][arm]["layers"]} for arm in arms}
    controls = found["controls"]
    random = {each["layer"]: each for each in controls["shuffled_labels"]["model"]["layers"]}
    lines = [f"{'layer':>5}" + "".join(f"{arm:>22}" for arm in arms) + f"{'model, shuffled':>18}"]
    for layer in sorted(set().union(*shown.values())):
        cells = [_cell(shown[arm].get(layer)) for arm in arms]
        other = f"{random[layer]['top1']:.3f}" if layer in random else "-"
        lines.append(f"{layer:>5}" + "".join(f"{cell:>22}" for cell in cells) + f"{other:>18}")
    figures = {name.removesuffix(",none"): value for name, value in content["results"][TASK].items()}
    last, depth = max(shown["model"]), found["arms"]["model"]["depth"]
    place = "last layer" if last == depth else f"layer {last} of {depth}"
    lines += [
        "",
        f"{place}: top-1 {figures['top1']:.3f}{_limits(figures['top1_low'], figures['top1_high'])}, excess over "
        f"retain {figures['top1_excess']:+.3f}{_limits(figures['top1_excess_low'], figures['top1_excess_high'], '+')}",
        f"chance {found['chance']:.3f}, candidates only {figures['candidates_only']:.3f} (after perturbed answers: "
        f"{controls['candidates_only_perturbed']['layers'][0]['top1']:.3f})",
        f"{found['n']} rows of {found['authors']} authors, learned from {found['training_facts']} facts of "
        f"{found['training_authors']} others, {len(found['seeds'])} seeds",
    ]
    return lines


def _cell(entry: Mapping[str, Any] | None) -> str:
    return "-" if entry is None else f"{entry['top1']:.3f}{_limits(entry['low'], entry['high'])}"


def _limits(low: float | None, high: float | None, sign: str = "") -> str:
    """An interval in brackets; empty with fewer authors than one is given for."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f" [{low:{sign}.3f}, {high:{sign}.3f}]"


def _layers(model: hidden.Model, wanted: Sequence[int] | None) -> list[int]:
    """Layer numbers from 0 on, each once.

    Raises:
        OptionError: The model has no such layer.
    """
    count = model.layers + 1
    if wanted is None:
        return list(range(count))
    for layer in wanted:
        if not -count <= layer < count:
            raise OptionError(
                f"--layers {layer}: {model.option} {model.name} has the layers 0 (the embeddings) to {model.layers}: "
                "name some of those, or negative numbers to count from the last"
            )
    return sorted({layer % count for layer in wanted})


def _tokenizer(model: hidden.Model) -> Any:
    from transformers import AutoTokenizer

    from lm_eval_tofu.unlearn.training import first_line

    try:
        return AutoTokenizer.from_pretrained(model.folder)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{model.option} {model.name}: its tokenizer cannot be read ({first_line(error)}): save it with the model"
        ) from error


def _prompting(config: ProbeConfig, tokenizer: Any) -> Prompting:
    has_template = bool(tokenizer.chat_template)
    applied = has_template if config.apply_chat_template is None else config.apply_chat_template
    if config.template_args and not applied:
        raise OptionError(
            f"--template-args {dict(config.template_args)} has no use without a chat template: leave it out"
        )
    return Prompting(applied, config.system_prompt, config.template_args)


def _check_tokenizers(config: ProbeConfig, tokenizers: Mapping[str, Any], row: Masked, prompting: Prompting) -> None:
    """Make sure that all arms see the same tokens.

    Only the audited model's chat template is used: base models often have none.

    Raises:
        OptionError: A tokenizer has another vocabulary, or splits a prompt in another way.
    """
    ours = tokenizers["model"]
    text = chat.render_dialogue(
        ours, [{"role": "user", "content": row.question}], prompting, row.answer[: row.cut].rstrip()
    )
    for arm, other in tokenizers.items():
        same = chat.token_ids(other, text, prompting) == chat.token_ids(ours, text, prompting)
        if not same or other.get_vocab() != ours.get_vocab():
            raise OptionError(
                f"--{arm} {config.arms[arm]} has another tokenizer than --model {config.model}: "
                "the arms must be trained from the same base"
            )


def _machine(config: ProbeConfig) -> tuple[str, str]:
    """Device and type, with `auto` resolved.

    Raises:
        OptionError: The device is not there.
    """
    import torch

    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device("--device", device)
    if config.dtype != "auto":
        return device, config.dtype
    has_bfloat16 = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return device, "bfloat16" if has_bfloat16 else "float32"
