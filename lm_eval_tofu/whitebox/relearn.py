"""Relearning (RTT): what comes back of a forgotten author when others, forgotten with them, are taught again.

After Deeb & Roger 2024 (arXiv 2410.08827): fine-tune on some of the facts that were to be removed (T), and ask for
others (V) that nobody can guess from the first. TOFU's authors were invented one by one, so they are the units. The
authors of the forget split are divided into folds; each fold is V once, and T is the rest. Learning rate and epochs are
chosen inside T, never by V.
"""

import argparse
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_tofu import files, tofu
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.files import as_float
from lm_eval_tofu.metrics import inference, recovery
from lm_eval_tofu.metrics.recovery import Change, Score
from lm_eval_tofu.tasks import families
from lm_eval_tofu.unlearn import alike
from lm_eval_tofu.whitebox import RELEARN, results
from lm_eval_tofu.whitebox.relearn_step import (
    CONFIG_FILE,
    TASK,
    Answer,
    Job,
    RelearnConfig,
    Setting,
    answers,
    recorded_settings,
)

log = logging.getLogger(__name__)

ARMS = ("model", "retain")

Answers = Mapping[tuple[int, str], Answer]
"""By row and family."""


class Fold(NamedTuple):
    """A division of the forget split's authors.

    Attributes:
        train: Authors to fine-tune on (T), in rising order.
        held_out: Authors to ask for (V), likewise.
    """

    train: tuple[int, ...]
    held_out: tuple[int, ...]


class Trial(NamedTuple):
    """A setting tried inside T: fine-tuned on a part of it, asked for the rest."""

    setting: Setting
    before: Score
    after: Score


class FoldResult(NamedTuple):
    """What one fold of one arm gave.

    Attributes:
        arm: `model` or `retain`.
        fold: Its number.
        authors: Those that were held out.
        setting: The chosen one.
        trials: What it was chosen by; none where there was nothing to choose.
        changes: The held-out answers, before and after.
    """

    arm: str
    fold: int
    authors: tuple[int, ...]
    setting: Setting
    trials: Sequence[Trial]
    changes: Sequence[Change]


# Folds.


def author_folds(authors: int, folds: int, seed: int = 0) -> list[Fold]:
    """Divide authors into folds of equal size, as far as that goes; each is held out exactly once.

    Args:
        authors: How many; they are numbered from 0.
        folds: How many parts, 2 to `authors`.
        seed: Of the division.

    Raises:
        OptionError: No such folds can be made.
    """
    if authors < 2:
        raise OptionError(
            "no author folds are possible: the forget split has one author, and relearning teaches one and asks for "
            "another: give a --forget-split with more"
        )
    if not 2 <= folds <= authors:
        raise OptionError(f"--folds {folds} does not fit {authors} authors: give 2 to {authors}")
    order = np.random.default_rng(seed).permutation(authors)
    parts = [tuple(sorted(map(int, part))) for part in np.array_split(order, folds)]
    return [Fold(tuple(sorted({*range(authors)} - {*part})), part) for part in parts]


def inner_split(fold: Fold, rows: int, folds: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Divide T once more, to choose a setting by: rows to fine-tune on, and rows to ask for.

    Whole authors go to one side, one part in `folds` of them to the second. Where T is one author, his rows are divided
    in the same way: they are not as independent as authors are, but V stays out of it.

    Args:
        fold: Its T is divided.
        rows: Of the forget split.
        folds: As in `author_folds`.
        seed: Of the division.
    """
    alone = len(fold.train) == 1
    units = rows_of(fold.train, rows) if alone else list(fold.train)
    order = [units[place] for place in np.random.default_rng((seed, *fold.held_out)).permutation(len(units))]
    cut = max(1, round(len(units) / folds))
    asked, taught = sorted(order[:cut]), sorted(order[cut:])
    return (taught, asked) if alone else (rows_of(taught, rows), rows_of(asked, rows))


def rows_of(authors: Sequence[int], rows: int) -> list[int]:
    """The rows of some authors, in a split of so many rows."""
    per = tofu.ROWS_PER_AUTHOR
    return [row for author in authors for row in range(author * per, min((author + 1) * per, rows))]


def best(trials: Sequence[Trial]) -> Setting:
    """The setting that recovers most inside T: by leak rate, ties by ROUGE-L recall, then the gentlest (the first).

    A gain that is NaN, where no row is specific, counts as none.
    """

    def gain(trial: Trial) -> tuple[float, float]:
        leaks = trial.after.leak_rate - trial.before.leak_rate
        return (0.0 if math.isnan(leaks) else leaks, trial.after.rouge - trial.before.rouge)

    return max(trials, key=gain).setting


def changes(before: Answers, after: Sequence[Answer], authors_of: int = tofu.ROWS_PER_AUTHOR) -> list[Change]:
    """Set each answer beside the one to the same prompt before.

    Raises:
        OptionError: Another prompt was asked before.
    """
    paired = []
    for answer in after:
        earlier = before.get((answer.row, answer.family))
        if earlier is None or earlier.prompt != answer.prompt:
            raise OptionError(
                f"row {answer.row} ({answer.family}) was asked with another prompt before: the data or the tokenizer "
                "changed since this --output was begun: name another"
            )
        paired.append(
            Change(
                row=answer.row,
                family=answer.family,
                author=answer.row // authors_of,
                specific=answer.specific,
                leaked=(earlier.leaked, answer.leaked),
                rouge=(earlier.rouge, answer.rouge),
            )
        )
    return paired


# The run.


def relearn(config: RelearnConfig) -> Path:
    """Relearn both arms in every fold, or what of it is left to do.

    Args:
        config: What to do.

    Returns:
        The results' file, `results_<time>.json` in lm-eval's form.

    Raises:
        OptionError: An option cannot be used; before any model is loaded.
        TofuError: Model or data cannot be used.
    """
    import filelock
    from tqdm import tqdm

    rows, folds = _prepared(config)
    recorded = _recorded(config)
    config.output.mkdir(parents=True, exist_ok=True)
    try:
        # The system frees the lock of a process that dies, however it dies.
        with filelock.FileLock(config.output / ".lock", timeout=0):
            _begin(config, recorded)
            trials = len(config.settings) if len(config.settings) > 1 else 0
            with tqdm(total=len(ARMS) * (1 + len(folds) * (trials + 1)), unit="step", desc="relearn") as bar:
                before = {arm: _before(config, arm, rows, bar) for arm in ARMS}
                _check_prompts(config, before)
                for difference in _differences(config):
                    log.warning("the arms are not asked alike: %s", difference)
                found = [
                    _fold(config, arm, number, fold, before[arm], rows, bar)
                    for number, fold in enumerate(folds)
                    for arm in ARMS
                ]
            return _write(config, found, recorded)
    except filelock.Timeout as error:
        raise OptionError(f"--output {config.output} is in use by another process: name another directory") from error


def _prepared(config: RelearnConfig) -> tuple[int, list[Fold]]:
    """Check everything that can be checked without a model; the number of forget rows, and the folds."""
    from lm_eval_tofu import evaluation
    from lm_eval_tofu.unlearn.models import check_model, load_tokenizer

    config.check()
    evaluation.check_machine(config.backend, config.model_args, config.batch_size, config.device)
    source = tofu.resolve_source(config.tofu, config.revision)
    taught = tofu.load(config.forget_split, source)
    asked = tofu.load(f"{config.forget_split}_perturbed", source)
    if [row["question"] for row in taught] != [row["question"] for row in asked]:
        raise DataError(
            f"{source}: {config.forget_split} and {config.forget_split}_perturbed differ in their questions: "
            f"fetch {tofu.HUB_ID} anew"
        )
    folds = author_folds(math.ceil(len(taught) / tofu.ROWS_PER_AUTHOR), config.folds, config.seed)
    for option, model in (("--model", config.model), ("--retain", config.retain)):
        check_model(model, option)
        load_tokenizer(model, config.apply_chat_template, option)
    _check_training(config, len(taught))
    last = config.output / max(ARMS, key=len) / f"fold{config.folds - 1}"
    for setting in config.settings:
        job = Job(config.model, _inner_folder(last, setting), [], [0], *setting)
        evaluation.check_results_name("--output", job.checkpoint)
    return len(taught), folds


def _check_training(config: RelearnConfig, rows: int) -> None:
    """Make the trainer's settings once, so that it refuses now what it would refuse after the first evaluations.

    Raises:
        OptionError: An option of `--training` is unknown or cannot be used.
    """
    from lm_eval_tofu.unlearn import training

    for setting in config.settings:
        finetuning = config.finetuning(Job(config.model, config.output, [], [0], *setting))
        training.training_arguments(finetuning, config.output, rows)


def _recorded(config: RelearnConfig) -> dict[str, Any]:
    """What determines the figures: options, and fingerprints of data and weights."""
    from lm_eval_tofu.unlearn import checkpoint

    source = tofu.resolve_source(config.tofu, config.revision)
    weights = {}
    for arm in ARMS:
        digests = checkpoint.saved_digests(Path(getattr(config, arm)).expanduser())
        # A model on the hub is known by its name alone.
        weights[arm] = checkpoint.fingerprint(digests) if digests else None
    data = {name: tofu.fingerprint(source, name) for name in _configurations(config)}
    return {"options": config.determining(), "fingerprints": {"data": data, "weights": weights}}


def _configurations(config: RelearnConfig) -> tuple[str, ...]:
    """The configurations that training, prompts and scorer read."""
    split = config.forget_split
    return split, f"{split}_perturbed", tofu.retain_split(split)


def _begin(config: RelearnConfig, recorded: Mapping[str, Any]) -> None:
    """Write down what is to be done, or compare it with what was begun here."""
    file = config.output / CONFIG_FILE
    if file.is_file():
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))["recorded"]
        except (OSError, ValueError, KeyError) as error:
            raise OptionError(f"{file} cannot be read ({error}): delete {config.output}, or name another") from error
        for name, value in recorded["options"].items():
            old = earlier["options"].get(name)
            if old != value:
                raise OptionError(
                    f"--{name.replace('_', '-')} is {value!r}, but was {old!r} in {config.output}: "
                    "go on with the same, or name another --output"
                )
        if earlier["fingerprints"] != recorded["fingerprints"]:
            raise OptionError(
                f"--output {config.output} was begun with other weights or data: restore them, or name another --output"
            )
    elif any(not each.name.startswith(".") for each in config.output.iterdir()):
        raise OptionError(f"--output {config.output} holds something else: name another directory")
    options = json.loads(json.dumps(asdict(config), default=str))
    files.write_json(file, {"options": options, "recorded": recorded})


def _before(config: RelearnConfig, arm: str, rows: int, bar: Any) -> dict[tuple[int, str], Answer]:
    job = Job(getattr(config, arm), config.output / arm / "before", list(range(rows)))
    return {(answer.row, answer.family): answer for answer in _done(config, job, bar)}


def _check_prompts(config: RelearnConfig, before: Mapping[str, Answers]) -> None:
    """Both arms must have been asked the same."""
    ours, theirs = (
        {key: (answer.prompt, answer.specific) for key, answer in before[arm].items()} for arm in ("model", "retain")
    )
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if different:
        row, family = different[0]
        raise OptionError(
            f"--retain {config.retain} is asked row {row} ({family}) with another prompt than --model {config.model}: "
            "name a retain arm with the same chat template"
        )


_MEANT_TO_DIFFER = ("options.forget_rows", "data_fingerprint", "tokens", "scored_tokens", "batch_size")
"""Settings that depend on which rows a step asks for."""


def _differences(config: RelearnConfig) -> list[str]:
    """What differs between the steps' evaluations besides their rows, such as the dtype of a model on disk.

    Raises:
        OptionError: Steps were asked with other options or versions of the task.
    """
    return alike.differences(TASK, recorded_settings(config.output), _MEANT_TO_DIFFER)


def _fold(config: RelearnConfig, arm: str, number: int, fold: Fold, before: Answers, rows: int, bar: Any) -> FoldResult:
    model, folder = getattr(config, arm), config.output / arm / f"fold{number}"
    settings, trials = config.settings, []
    if len(settings) > 1:
        taught, asked = inner_split(fold, rows, config.folds, config.seed)
        for setting in settings:
            place = _inner_folder(folder, setting)
            found = changes(before, _done(config, Job(model, place, asked, taught, *setting), bar))
            trials.append(Trial(setting, recovery.score(found, 0), recovery.score(found, 1)))
    setting = best(trials) if trials else settings[0]
    log.info("%s, fold %d: lr %g, %d epochs", arm, number, *setting)
    taught, asked = rows_of(fold.train, rows), rows_of(fold.held_out, rows)
    after = _done(config, Job(model, folder / "after", asked, taught, *setting), bar)
    return FoldResult(arm, number, fold.held_out, setting, trials, changes(before, after))


def _inner_folder(folder: Path, setting: Setting) -> Path:
    return folder / f"inner-lr{setting.lr}-epochs{setting.epochs}"


def _done(config: RelearnConfig, job: Job, bar: Any) -> list[Answer]:
    found = answers(config, job)
    bar.update()
    return found


# Results.


def summary(found: Sequence[FoldResult]) -> dict[str, float]:
    """The reported metrics; leaks in percentage points, ROUGE-L recall as a difference of shares."""
    pooled = {arm: [change for result in found if result.arm == arm for change in result.changes] for arm in ARMS}
    model, retain = pooled["model"], pooled["retain"]
    return {
        **results.with_interval("recovery_delta", recovery.recovery_delta(model)),
        **results.with_interval("retain_recovery_delta", recovery.recovery_delta(retain)),
        **results.with_test("excess", recovery.excess(model, retain)),
        "rougeL_delta": recovery.rouge_delta(model),
        "retain_rougeL_delta": recovery.rouge_delta(retain),
        "n": recovery.score(model, 0).n,
    }


def _write(config: RelearnConfig, found: Sequence[FoldResult], recorded: Mapping[str, Any]) -> Path:
    earlier = list(config.output.glob("results_*.json"))
    file = results.write(
        config.output,
        RELEARN,
        summary(found),
        model=config.model,
        n=len({(change.row, change.family) for result in found for change in result.changes}),
        metadata={
            **config.metadata,
            "retain": config.retain,
            **recorded,
            "libraries": {name: metadata.version(name) for name in ("lm_eval", "torch", "transformers")},
        },
        details={"folds": [_described(result) for result in found], "differences": _differences(config)},
    )
    # They were computed from the same steps, so they state the same.
    for old in earlier:
        old.unlink()
    return file


def _described(result: FoldResult) -> dict[str, Any]:
    return {
        "arm": result.arm,
        "fold": result.fold,
        "authors": list(result.authors),
        **result.setting._asdict(),
        "before": _figures(recovery.score(result.changes, 0)),
        "after": _figures(recovery.score(result.changes, 1)),
        "inner": [
            {**trial.setting._asdict(), "before": _figures(trial.before), "after": _figures(trial.after)}
            for trial in result.trials
        ],
    }


def _figures(score: Score) -> dict[str, float]:
    return {"leak_rate": score.leak_rate, "rougeL_recall": score.rouge, "n": score.n}


def table(content: Mapping[str, Any]) -> Iterator[str]:
    """The lines that `lm-eval-tofu relearn` prints of a results file's content."""
    figures = results.metrics_of(content, RELEARN)
    yield (
        f"{'arm':6}  {'fold':>4}  {'lr':>7}  {'epochs':>6}  {'leak before':>11}  {'after':>6}  "
        f"{'ROUGE-L before':>14}  after"
    )
    for fold in content[RELEARN]["folds"]:
        before, after = ({name: as_float(value) for name, value in fold[when].items()} for when in ("before", "after"))
        yield (
            f"{fold['arm']:6}  {fold['fold']:>4}  {fold['lr']:>7g}  {fold['epochs']:>6}  "
            f"{before['leak_rate']:>11.3f}  {after['leak_rate']:>6.3f}  {before['rougeL_recall']:>14.3f}  "
            f"{after['rougeL_recall']:.3f}"
        )
    yield ""
    for label, name in (
        ("recovery delta", "recovery_delta"),
        ("of the retain arm", "retain_recovery_delta"),
        ("excess", "excess"),
    ):
        low, high = figures[f"{name}_low"], figures[f"{name}_high"]
        interval = f"95 % over authors: {low:+.2f} to {high:+.2f}"
        if math.isnan(low):
            interval = f"no interval: fewer than {inference.MIN_CLUSTERS} authors"
        yield f"{label:18} {figures[name]:+7.2f} pp   {interval}"
    rouge, theirs = figures["rougeL_delta"], figures["retain_rougeL_delta"]
    yield f"{'ROUGE-L recall':18} {rouge:+7.3f}      retain arm: {theirs:+.3f}"
    yield f"{'answers':18} {figures['n']:7.0f}      on rows with a specific fact"
    for difference in content[RELEARN]["differences"]:
        yield f"not asked alike: {difference}"


# The command line.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu relearn`."""
    from lm_eval_tofu.unlearn.options import DTYPES, add_option, add_switch

    default = RelearnConfig(model="", retain="", output=Path())
    add_option(parser, "--model", required=True, metavar="M", help="the model to audit: directory or hub name")
    add_option(parser, "--retain", required=True, metavar="M", help="the retain arm, which never saw the forget rows")
    add_option(parser, "--output", required=True, type=Path, metavar="DIR", help="results, and what is resumed from")
    add_option(parser, "--tofu", help="data: mini, a directory, or a hub id (default: LM_EVAL_TOFU_DATA, else the hub)")
    add_option(parser, "--revision", help="the data's revision on the hub")
    for flag, kind, what in (
        ("--forget-split", str, f"one of {', '.join(tofu.FORGET_SPLITS)}"),
        ("--folds", int, "parts of the authors, each held out once"),
        (
            "--families",
            _texts,
            f"prompt families to ask in, joined by commas, out of {', '.join(families.NOVEL_RECALL)}",
        ),
        ("--lrs", _numbers, "learning rates to choose from, joined by commas"),
        ("--epochs", _counts, "numbers of epochs to choose from, joined by commas"),
        ("--train-batch-size", int, "rows at a time in training"),
        ("--gradient-accumulation", int, "batches a step"),
        ("--warmup", float, "linear warm-up, in epochs, at most half of them"),
        ("--seed", int, "of the folds and the training"),
        ("--dtype", str, f"of the training: one of {', '.join(DTYPES)}"),
        ("--backend", str, "for the answers: hf or vllm"),
    ):
        value = getattr(default, flag[2:].replace("-", "_"))
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        add_option(parser, flag, type=kind, default=value, metavar="X", help=f"{what} (default: {shown})")
    add_option(parser, "--training", metavar="JSON", help="further options of the trainer (TrainingArguments)")
    add_switch(parser, "--no-chat-template", "ask and train with 'Question: ...\\nAnswer: ...' as plain text")
    add_option(parser, "--system-prompt", metavar="TEXT", help="content of the system turn")
    add_option(parser, "--template-args", metavar="JSON", help="variables for the chat template")
    add_option(parser, "--model-args", metavar="K=V,...", help="further model arguments of the backend")
    add_option(parser, "--batch-size", type=_batch, metavar="N", help="of the answers, as lm_eval's --batch_size")
    add_option(parser, "--device", help="of the answers, as lm_eval's --device")
    add_switch(parser, "--keep-checkpoints", "keep the fine-tuned models")


def run(args: argparse.Namespace) -> Path:
    """Run `lm-eval-tofu relearn`.

    Returns:
        The results' file.

    Raises:
        TofuError: As `relearn`.
    """
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_tofu.unlearn.options import parsed_training

    names = {each.name for each in fields(RelearnConfig)} - {"training", "template_args", "model_args"}
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return relearn(
        RelearnConfig(
            **values,
            apply_chat_template=not args.no_chat_template,
            training=parsed_training("--training", _object("--training", args.training)),
            template_args=_object("--template-args", args.template_args),
            model_args=simple_parse_args_string(args.model_args),
        )
    )


def _object(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OptionError(f"{option} {text!r} is not JSON ({error}): give an object, such as '{{}}'") from error
    if not isinstance(value, dict):
        raise OptionError(f"{option} {text!r} is not an object: give for example '{{}}'")
    return value


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers: give for example 1e-5,5e-5") from error


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers: give for example 2,5") from error


def _batch(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
