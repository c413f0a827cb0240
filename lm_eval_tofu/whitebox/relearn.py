"""Relearning (RTT): what a model answers about forgotten authors after others, forgotten with them, are taught again.

After Deeb & Roger 2024 (arXiv 2410.08827): fine-tune on some of the facts that were to be removed (T), and ask for
others (V) that nobody can guess from the first. TOFU's authors were invented one by one, so they are the units. The
authors of the forget split are divided into folds; each fold is V once, and T is the rest. Learning rate and epochs are
chosen inside T, never by V.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_tofu import files, tofu
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.files import as_float
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.metrics import inference, recovery
from lm_eval_tofu.metrics.recovery import Change, Score
from lm_eval_tofu.unlearn import alike
from lm_eval_tofu.whitebox import RELEARN, results
from lm_eval_tofu.whitebox.relearn_step import (
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
CONFIG_FILE = "relearn.json"

Answers = Mapping[tuple[int, str], Answer]
"""By row and family."""
Do = Callable[[Job], list[Answer]]
"""Does a step."""


class Fold(NamedTuple):
    """A division of the forget split's authors into those to fine-tune on (T) and those to ask for (V), in order."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]


class Trial(NamedTuple):
    """A setting tried inside T: fine-tuned on a part of it, asked for the rest."""

    setting: Setting
    before: Score
    after: Score


class FoldResult(NamedTuple):
    """The outcome of one fold of one arm."""

    arm: str  # `model` or `retain`
    fold: int
    authors: tuple[int, ...]  # those that were held out
    setting: Setting  # the chosen one
    trials: Sequence[Trial]  # what it was chosen by; none where there was nothing to choose
    changes: Sequence[Change]  # the held-out answers, before and after


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

    Whole authors go to one side, one part in `folds` of them to the second. Where T is one author, that author's rows
    are divided in the same way: they are not as independent as authors are, but V stays out of it.

    Args:
        fold: Its T is divided.
        rows: Of the forget split.
        folds: As in `author_folds`.
        seed: Of the division.
    """
    alone = len(fold.train) == 1
    units = rows_of(fold.train, rows) if alone else list(fold.train)
    order = [units[index] for index in np.random.default_rng((seed, *fold.held_out)).permutation(len(units))]
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


def changes(before: Answers, after: Sequence[Answer]) -> list[Change]:
    """Pair each answer with the one to the same prompt before.

    Raises:
        OptionError: Another prompt was asked before.
    """
    paired = []
    for answer in after:
        row, family = answer.row, answer.family
        earlier = before.get((row, family))
        if earlier is None or earlier.prompt != answer.prompt:
            raise OptionError(
                f"row {row} ({family}) was asked with another prompt before: the data or the tokenizer changed since "
                "this --output was begun: name another"
            )
        leaked, rouge = (earlier.leaked, answer.leaked), (earlier.rouge, answer.rouge)
        paired.append(Change(row, family, row // tofu.ROWS_PER_AUTHOR, answer.specific, leaked, rouge))
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

    rows, folds = _checked(config)
    recorded = _recorded(config)
    config.output.mkdir(parents=True, exist_ok=True)
    try:
        # The system frees the lock of a process that dies, however it dies.
        with filelock.FileLock(config.output / ".lock", timeout=0):
            _begin(config, recorded)
            trials = len(config.settings) if len(config.settings) > 1 else 0
            with tqdm(total=len(ARMS) * (1 + len(folds) * (trials + 1)), unit="step", desc="relearn") as bar:

                def done(job: Job) -> list[Answer]:
                    found = answers(config, job)
                    bar.update()
                    return found

                before = {}
                for arm in ARMS:
                    job = Job(getattr(config, arm), config.output / arm / "before", range(rows))
                    before[arm] = {(answer.row, answer.family): answer for answer in done(job)}
                _check_prompts(config, before)
                for difference in _differences(config):
                    log.warning("the arms were evaluated with different settings: %s", difference)
                found = [
                    _fold(config, arm, number, fold, before[arm], rows, done)
                    for number, fold in enumerate(folds)
                    for arm in ARMS
                ]
            return _write(config, found, recorded)
    except filelock.Timeout as error:
        raise OptionError(f"--output {config.output} is in use by another process: name another directory") from error


def _checked(config: RelearnConfig) -> tuple[int, list[Fold]]:
    """Check everything that can be checked without loading a model; the number of forget rows, and the folds."""
    from lm_eval_tofu import evaluation
    from lm_eval_tofu.unlearn import training
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
    last = config.output / max(ARMS, key=len) / f"fold{config.folds - 1}"
    for setting in config.settings:
        job = Job(config.model, _inner_folder(last, setting), [], [0], setting)
        # The trainer refuses now what it would refuse after the first evaluations.
        training.training_arguments(config.finetuning(job), config.output, len(taught))
        evaluation.check_results_name("--output", job.checkpoint)
    return len(taught), folds


def _recorded(config: RelearnConfig) -> dict[str, Any]:
    """What determines the figures: options, and fingerprints of data and weights."""
    source, split = tofu.resolve_source(config.tofu, config.revision), config.forget_split
    data = {name: tofu.fingerprint(source, name) for name in (split, f"{split}_perturbed", tofu.retain_split(split))}
    # A model on the hub is identified by its name alone.
    weights = {arm: weights_fingerprint(Path(getattr(config, arm)).expanduser()) for arm in ARMS}
    return {"options": config.reproducibility_fields(), "fingerprints": {"data": data, "weights": weights}}


def _begin(config: RelearnConfig, recorded: Mapping[str, Any]) -> None:
    """Write down what is to be done, or compare it with what was begun here."""
    file = config.output / CONFIG_FILE
    if file.is_file():
        earlier = files.read_json(file, f"delete {config.output}, or name another --output")
        for name, value in recorded["options"].items():
            old = earlier.get("options", {}).get(name)
            if old != value:
                raise OptionError(
                    f"--{name.replace('_', '-')} is {value!r}, but was {old!r} in {config.output}: "
                    "continue with the same, or name another --output"
                )
        if earlier.get("fingerprints") != recorded["fingerprints"]:
            raise OptionError(
                f"--output {config.output} was begun with other weights or data: restore them, or name another --output"
            )
    elif any(not each.name.startswith(".") for each in config.output.iterdir()):
        raise OptionError(f"--output {config.output} holds something else: name another directory")
    files.write_json(file, recorded)


def _check_prompts(config: RelearnConfig, before: Mapping[str, Answers]) -> None:
    """Both arms must have been asked the same."""
    ours, theirs = ({key: (each.prompt, each.specific) for key, each in before[arm].items()} for arm in ARMS)
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


def _fold(config: RelearnConfig, arm: str, number: int, fold: Fold, before: Answers, rows: int, done: Do) -> FoldResult:
    model, folder = getattr(config, arm), config.output / arm / f"fold{number}"
    setting, trials = config.settings[0], []
    if len(config.settings) > 1:
        taught, asked = inner_split(fold, rows, config.folds, config.seed)
        for tried in config.settings:
            job = Job(model, _inner_folder(folder, tried), asked, taught, tried)
            trials.append(_trial(tried, changes(before, done(job))))
        setting = best(trials)
    log.info("%s, fold %d: lr %g, %d epochs", arm, number, *setting)
    job = Job(model, folder / "after", rows_of(fold.held_out, rows), rows_of(fold.train, rows), setting)
    return FoldResult(arm, number, fold.held_out, setting, trials, changes(before, done(job)))


def _trial(setting: Setting, found: Sequence[Change]) -> Trial:
    return Trial(setting, recovery.score(found, 0), recovery.score(found, 1))


def _inner_folder(folder: Path, setting: Setting) -> Path:
    return folder / f"inner-lr{setting.lr}-epochs{setting.epochs}"


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
    def figures(score: Score) -> dict[str, float]:
        return {"leak_rate": score.leak_rate, "rougeL_recall": score.rouge, "n": score.n}

    outcome, *inner = (
        {**trial.setting._asdict(), "before": figures(trial.before), "after": figures(trial.after)}
        for trial in (_trial(result.setting, result.changes), *result.trials)
    )
    return {"arm": result.arm, "fold": result.fold, "authors": list(result.authors), **outcome, "inner": inner}


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
        yield f"evaluated with different settings: {difference}"
