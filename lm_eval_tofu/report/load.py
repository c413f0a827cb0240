"""Reads what lm-eval wrote for any number of arms, and refuses to set side by side what cannot be compared."""

import difflib
import functools
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lm_eval_tofu import arm as arms_settings
from lm_eval_tofu import files, tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.tasks import TASKS_DIR
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.reported import TASKS as TASKS
from lm_eval_tofu.whitebox import PROBE, RELEARN
from lm_eval_tofu.whitebox import VERSIONS as TOOLS

log = logging.getLogger(__name__)

ROLES = ("base", "full", "retain", "unlearned")
"""Names of arms that have a meaning; all others are audited as `unlearned` is."""

as_float = files.as_float

DEFAULTS = Options()
"""What the tasks' options are where a run does not name them."""

_NUMBER = int | float | None
_JUDGED = {"family": str, "tier": str, "leaked": int, "score": _NUMBER, "found": list, "generation": str}
_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "tofu_forget_quality": {"truth_ratio": _NUMBER},
    "tofu_model_utility": {"probability": _NUMBER, "rougeL_recall": _NUMBER, "truth_ratio": _NUMBER},
    "tofu_answer_logprob": {"answer_logprob": _NUMBER},
    "tofu_novel_recall": _JUDGED,
    "tofu_format_shift": _JUDGED,
    "tofu_best_of_n": {"tier": str, "n": int, "leaked": int, "sought": list, "samples": list},
    "tofu_chain_of_clues": _JUDGED,
    "tofu_recognition": {"correct": int},
}
"""What the report reads from each task's records, beside set and index."""

Key = tuple[str, int, str]
"""A document: set, row and prompt family (empty where a task has none)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a samples file, without what the report does not need.

    Attributes:
        record: The task's record of the document.
        question: The row's question.
        answer: Its gold answer.
        messages: The turns that asked, where they are not the question alone.
        opening: The words that began the model's turn.
        prompt_hash: lm-eval's hash of the rendered prompt.
    """

    record: Mapping[str, Any]
    question: str
    answer: str
    messages: Sequence[Mapping[str, str]]
    opening: str
    prompt_hash: str | None


@dataclass(frozen=True, slots=True)
class TaskRun:
    """The newest run of one task on one arm.

    Attributes:
        task: Its name.
        version: Of the task.
        split: Forget split.
        path: The results file.
        model: As the model arguments name it, without adapter and the like; `settings.name` has those too.
        options: The tasks' options that the run was given, and its chat_template_args.
        documents: How many it was asked; None where the results do not say.
        of: How many there are with these options; likewise.
        metrics: By name, without lm-eval's filter; what is no number is NaN.
        settings: How it was run.
        samples: By document, in the order of the rows; None where the run has no samples file.
    """

    task: str
    version: Any
    split: str
    path: Path
    model: str
    options: Mapping[str, Any]
    documents: int | None
    of: int | None
    metrics: Mapping[str, float]
    settings: ArmSettings
    samples: Mapping[Key, Sample] | None

    @property
    def source(self) -> str:
        """The data, as the option `tofu` names them; empty for the default."""
        return str(self.options.get("tofu") or "")

    @property
    def is_part(self) -> bool:
        """Whether fewer documents were asked than there are."""
        return self.documents is not None and self.documents < (self.of or 0)

    def records(self) -> list[Mapping[str, Any]]:
        """The records in the order of the rows."""
        return [sample.record for sample in (self.samples or {}).values()]


@dataclass(frozen=True, slots=True)
class Arm:
    """One model.

    Attributes:
        name: As the user calls it.
        path: Where its results are.
        runs: By task.
        probe: What `lm-eval-tofu probe` wrote below `tofu_probe`; None without one.
        relearn: The figures of `lm-eval-tofu relearn`, by name; None without them.
        splits: Forget split of probe and relearning, by task, where they state it.
        of_chosen_rows: Tasks with runs about some rows only (option forget_rows), which are left out.
    """

    name: str
    path: Path
    runs: dict[str, TaskRun] = field(default_factory=dict)
    probe: Mapping[str, Any] | None = None
    relearn: Mapping[str, float] | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    of_chosen_rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """All arms, checked.

    Attributes:
        arms: Known roles first, in their usual order.
        split: The forget split of all of them.
        warnings: Differences between arms that may explain a difference in figures.
    """

    arms: list[Arm]
    split: str
    warnings: list[str]

    def arm(self, name: str) -> Arm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def audited(self) -> list[Arm]:
        """The arms that the report is about: all that have no role of their own, else the full arm as a control."""
        own = [arm for arm in self.arms if arm.name not in ("base", "full", "retain")]
        return own or [arm for arm in self.arms if arm.name == "full"] or self.arms[:1]


def parse_arms(given: Sequence[str], option: str = "RESULTS") -> dict[str, Path]:
    """Names and paths of the arms.

    Args:
        given: `name=path`, a path (named after its last part), or a YAML file of `name: path`, whose paths are relative
            to the file.
        option: What the user calls it, for messages.

    Raises:
        OptionError: A path does not exist, a file is no such YAML, or a name or a path is given twice.
    """
    pairs: list[tuple[str, Path]] = []
    for text in given:
        name, equals, rest = text.partition("=")
        if equals and name and "/" not in name and not _exists(Path(text)):
            pairs.append((name, _path(rest)))
        elif Path(text).suffix in (".yaml", ".yml"):
            pairs += _arms_of_file(Path(text), option)
        else:
            path = _path(text)
            place = path.resolve() if _exists(path) else path
            pairs.append((place.parent.name if place is not path and path.is_file() else place.name, path))
    arms: dict[str, Path] = {}
    for name, path in pairs:
        if not _exists(path):
            raise OptionError(
                f"{option} {name[:80]}={str(path)[:200]!r} does not exist: name a directory that lm_eval wrote"
            )
        if path.is_file() and path.name.startswith("samples_"):
            raise OptionError(
                f"{option} {name}={str(path)!r} is a samples file: name its directory, which holds the results too"
            )
        if name in arms:
            raise OptionError(f"{option} names the arm {name!r} twice ({arms[name]}, {path}): use name=path")
        same = next((other for other, before in arms.items() if before.resolve() == path.resolve()), None)
        if same is not None:
            raise OptionError(
                f"{option} gives {path} to both arms {same!r} and {name!r}: give each arm its own results"
            )
        arms[name] = path
    if not arms:
        raise OptionError(f"{option} names no arm: give directories that lm_eval wrote, as name=path")
    return arms


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, or one with a null character
        return False


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home directory of nobody
        return Path(text)


def _arms_of_file(path: Path, option: str) -> list[tuple[str, Path]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise OptionError(f"{option} {path} cannot be read ({what}): give a YAML file of name: path") from error
    if not isinstance(content, dict) or not all(isinstance(part, str) for pair in content.items() for part in pair):
        raise OptionError(f"{option} {path} is no list of arms: write one `name: path` a line")
    return [(name, path.parent / _path(value)) for name, value in content.items()]


def load(arms: Mapping[str, Path], option: str = "RESULTS") -> Results:
    """Read every arm's newest run of every task and check that they can be compared.

    Args:
        arms: Directory, or one results file, by the arm's name.
        option: What the user calls it, for messages.

    Raises:
        OptionError: An arm has no results or damaged ones, or arms differ in split, task version or rows.
    """
    read = [_read_arm(name, path, option) for name, path in arms.items()]
    order = {name: number for number, name in enumerate(ROLES)}
    read.sort(key=lambda arm: order.get(arm.name, len(ROLES)))
    split = _same_split(read)
    _check_rows(read)
    settings = _other_settings(read)
    _check_numbers(read)
    warnings = [*_near_roles(read), *_left_out(read), *_other_prompts(read), *settings]
    warnings += _other_references(read)
    warnings += [*_other_probes(read), *_same_model(read)]
    for warning in warnings:
        log.warning("%s", warning)
    return Results(read, split, warnings)


def _read_arm(name: str, path: Path, option: str) -> Arm:
    found_files = files.results_files(path) if path.is_dir() else [path]
    if not found_files:
        raise OptionError(
            f"{option} {name}={str(path)!r} holds no results (results_<time>.json): run lm_eval --tasks 'tofu_*' "
            f"--log_samples --output_path {path}, or name another directory"
        )
    where = f"{option} {name}={str(path)!r}"
    newest: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    models: dict[str, list[tuple[str, ArmSettings]]] = {}
    probe: Mapping[str, Any] | None = None
    relearn: Mapping[str, float] | None = None
    splits: dict[str, str] = {}
    of_chosen_rows: set[str] = set()
    for file in found_files:  # the newest last: it wins
        content = _json(file)
        results = content.get("results")
        if not isinstance(results, dict):
            raise OptionError(f"{where}: {file} has no results: delete it, or name another directory")
        for task in results:
            if task in TASKS and _is_partial(content, task):
                of_chosen_rows.add(task)
            elif task in TASKS:
                settings = arms_settings.settings_in(content, task)
                if settings is not None:
                    models.setdefault(task, []).append((_relative(file, path), settings))
                newest[task] = file, content
        for task, version in TOOLS.items():
            if task not in results:
                continue
            metadata = _metadata(content, task)
            _check_version(name, file, task, _version(content, task), version)
            if metadata.get("forget_split"):
                splits[task] = str(metadata["forget_split"])
        if PROBE in results:
            probe = {**_mapping(content.get(PROBE)), "metrics": _metrics(results[PROBE])}
        if RELEARN in results:
            relearn = _metrics(results[RELEARN])
    if not newest and probe is None and relearn is None:
        if of_chosen_rows:
            raise OptionError(
                f"{where} holds runs about some rows only ({', '.join(sorted(of_chosen_rows))} with the option "
                "forget_rows), which the report leaves out: evaluate that arm without forget_rows"
            )
        raise OptionError(f"{where} holds results of other tasks only: run lm_eval --tasks 'tofu_*' on that arm")
    runs = {task: _read_run(name, task, *newest[task]) for task in TASKS if task in newest}
    for found in models.values():
        arms_settings.refuse_unless_same_model(where, found, retrained=True)
    chosen = [(f"{_relative(run.path, path)}, {task}", run.settings) for task, run in runs.items()]
    arms_settings.refuse_unless_same_model(where, chosen)
    return Arm(name, path, runs, probe, relearn, splits, tuple(task for task in TASKS if task in of_chosen_rows))


def _relative(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if folder.is_dir() else file.name


def _is_partial(content: Mapping[str, Any], task: str) -> bool:
    """Whether a run was about chosen rows only, as the steps of relearning are."""
    return _metadata(content, task).get("forget_rows") is not None


def _metadata(content: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    return _mapping(_mapping(_mapping(content.get("configs")).get(task)).get("metadata"))


def _version(content: Mapping[str, Any], task: str) -> Any:
    return _mapping(content.get("versions")).get(task, _metadata(content, task).get("version"))


def _check_version(arm: str, file: Path, task: str, version: Any, ours: Any) -> None:
    if version != ours:
        raise OptionError(
            f"arm {arm!r} ({file}) is of {task} version {version}, this is version {ours}: evaluate the arm again, or "
            "install the release that it was evaluated with"
        )


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{file} cannot be read ({error}): it is cut or damaged; delete it and evaluate that arm again"
        ) from error
    return _mapping(content)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _metrics(values: Any) -> dict[str, float]:
    """Numbers by name, without lm-eval's filter and standard errors; NaN for a metric without a value (null)."""
    return {
        key.removesuffix(",none"): as_float(value)
        for key, value in _mapping(values).items()
        if isinstance(value, int | float | None) and not isinstance(value, bool) and "_stderr," not in key
    }


def _read_run(arm: str, task: str, file: Path, content: Mapping[str, Any]) -> TaskRun:
    metadata, version, ours = _metadata(content, task), _version(content, task), task_versions()[task]
    time = files.time_of(file)
    samples_file = file.with_name(f"samples_{task}_{time}.jsonl")
    samples = None
    # Before anything else of it is read: another version's records may hold other things.
    if version is not None or not samples_file.is_file():
        _check_version(arm, file, task, version, ours)
    if samples_file.is_file():
        # Those of several processes come in another order.
        samples = dict(sorted(_samples(samples_file, arm, task, ours), key=lambda pair: pair[0]))
    settings = arms_settings.settings_in(content, task)
    if settings is None:
        raise OptionError(
            f"arm {arm!r} ({file}) does not say how {task} was run, as results of another version of lm-eval-tofu: "
            "evaluate the arm again"
        )
    numbers = _mapping(_mapping(content.get("n-samples")).get(task))
    expected, of = (
        numbers.get(key) if isinstance(numbers.get(key), int) else None for key in ("effective", "original")
    )
    if samples is not None and expected is not None and len(samples) != expected:
        raise OptionError(
            f"{samples_file} has {len(samples)} of {expected} documents: the run was killed while it wrote, or the "
            "file was cut; evaluate that arm again"
        )
    split = metadata.get("forget_split") or "forget10"
    for sample in (samples or {}).values():
        split = str(sample.record["split"])
        break
    metrics = _metrics(_mapping(content["results"]).get(task))
    documents = expected if samples is None else len(samples)
    options = {name: metadata[name] for name in _OPTIONS if metadata.get(name) is not None}
    return TaskRun(task, ours, split, file, settings.model, options, documents, of, metrics, settings, samples)


_OPTIONS = (
    *("forget_split", "tofu", "tofu_revision", "truth_ratio_eps", "families", "formats"),
    *("best_of_n", "best_of_n_temperature", "best_of_n_top_p", "best_of_n_prompts"),
    *("retain_reference", "full_reference", "chat_template_args"),
)
"""Of the recorded metadata, which holds the model's arguments too."""


def _samples(file: Path, arm: str, task: str, version: Any) -> Iterator[tuple[Key, Sample]]:
    number = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file}, line {number}"
            try:
                sample = json.loads(line)
            except ValueError as error:
                raise OptionError(
                    f"{where}: not JSON ({error}): the run was killed while it wrote, or the file is damaged; "
                    "evaluate that arm again, or delete this run's files if another run of it is there"
                ) from error
            record = sample.get(TASKS[task]) if isinstance(sample, dict) else None
            if not isinstance(record, dict) or record.get("task") != task:
                raise OptionError(f"{where}: no record of {task}: delete the file, and evaluate that arm again")
            _check_version(arm, file, task, record.get("version"), version)
            _check_record(record, task, where)
            doc = _mapping(sample.get("doc"))
            key = (record["set"], record["index"], str(record.get("family", "")))
            yield (
                key,
                Sample(
                    record,
                    str(doc.get("question", "")),
                    str(doc.get("answer", "")),
                    doc.get("messages") or (),
                    doc.get("opening") or "",
                    sample.get("prompt_hash"),
                ),
            )
    if not number:
        raise OptionError(f"{file} is empty: the run was killed before it wrote; evaluate that arm again")


def _check_record(record: Mapping[str, Any], task: str, where: str) -> None:
    """Make sure that a record has what the report reads."""
    for name, kind in {"set": str, "index": int, "split": str, **_FIELDS[task]}.items():
        is_truth = name == "index" and isinstance(record.get(name), bool)
        if name not in record or not isinstance(record[name], kind) or is_truth:
            what = f"has {name}={str(record[name])[:40]!r}" if name in record else f"lacks {name!r}"
            raise OptionError(f"{where}: the record of {task} {what}: delete the file, and evaluate that arm again")
    for part in record.get("samples", ()) if task == "tofu_best_of_n" else ():
        if not isinstance(part, dict) or not {"leaked", "found", "generation"} <= part.keys():
            raise OptionError(f"{where}: a sample of {task} is damaged: delete the file, and evaluate that arm again")


# What is refused: figures of these would look comparable and are not.


def _same_split(arms: Sequence[Arm]) -> str:
    first: tuple[Arm, str] | None = None
    for arm in arms:
        found = [(run.task, run.split, run.path) for run in arm.runs.values()]
        found += [(task, split, arm.path) for task, split in arm.splits.items()]
        for task, split, path in found:
            if first is None:
                first = arm, split
            elif split != first[1]:
                raise OptionError(
                    f"arm {arm.name!r} ({path}) is a run of {task} on {split}, arm {first[0].name!r} is on {first[1]}: "
                    "evaluate all arms with the same forget_split"
                )
    return first[1] if first else "forget10"


class _AnyTag(yaml.SafeLoader):
    """Reads a task's YAML without importing what its tags name."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: None)


@functools.cache
def task_versions() -> dict[str, Any]:
    """The versions of the tasks in this package, from their YAML files."""
    shared, *leaves = (
        yaml.load((TASKS_DIR / name).read_text(encoding="utf-8"), _AnyTag)
        for name in ("_tofu_template", *(f"{task}.yaml" for task in TASKS))
    )
    return {leaf["task"]: {**shared, **leaf}["metadata"]["version"] for leaf in leaves}


_ALIKE = "without --limit, with the same data (tofu) and the same families and formats"


def _check_numbers(arms: Sequence[Arm]) -> None:
    """Without samples, the number of documents is all that tells one part of them from another."""
    for task in TASKS:
        runs = [(arm, arm.runs[task]) for arm in arms if task in arm.runs]
        for number, (arm, run) in enumerate(runs):
            for other, first in runs[:number]:
                if run.samples is not None and first.samples is not None:
                    continue
                pairs = ((first.documents, run.documents), (first.of, run.of))
                for theirs, ours in pairs:
                    if theirs is not None and ours is not None and theirs != ours:
                        raise OptionError(
                            f"arms {other.name!r} and {arm.name!r} have other rows of {task}: {theirs} and {ours} "
                            f"documents: evaluate both {_ALIKE}"
                        )


def _check_rows(arms: Sequence[Arm]) -> None:
    for task in TASKS:
        first: tuple[Arm, Mapping[Key, Sample]] | None = None
        for arm in arms:
            run = arm.runs.get(task)
            if run is None or run.samples is None:
                continue
            if first is None:
                first = arm, run.samples
                continue
            other, samples = first
            pair = f"arms {other.name!r} and {arm.name!r}"
            fix = f"evaluate both {_ALIKE}"
            differing = samples.keys() ^ run.samples.keys()
            if differing:
                key = min(differing)
                have, lack = (other, arm) if key in samples else (arm, other)
                family = f" ({key[2]})" if key[2] else ""
                raise OptionError(
                    f"{pair} have other rows of {task}: {len(samples)} and {len(run.samples)}; {key[0]} row {key[1]}"
                    f"{family} is in {have.name!r} and not in {lack.name!r}: {fix}"
                )
            for key, sample in run.samples.items():
                if (sample.question, sample.answer) != (samples[key].question, samples[key].answer):
                    raise OptionError(
                        f"{pair} have other rows of {task}: {key[0]} row {key[1]} is another question or answer: {fix}"
                    )


# What is warned of.


def _near_roles(arms: Sequence[Arm]) -> Iterator[str]:
    """Names that look like a role's where no arm has that role: such an arm would be audited as an unlearned one."""
    names, controls = {arm.name for arm in arms}, [role for role in ROLES if role != "unlearned"]
    for arm in arms:
        near = difflib.get_close_matches(arm.name.lower(), controls, n=1, cutoff=0.75)
        if arm.name not in ROLES and near and near[0] not in names:
            yield (
                f"the arm {arm.name!r} counts as an unlearned model: did you mean {near[0]!r}? Controls are named "
                f"{', '.join(controls)}; write {near[0]}={arm.path}"
            )


def _other_prompts(arms: Sequence[Arm]) -> Iterator[str]:
    for task in TASKS:
        having = [arm for arm in arms if task in arm.runs]
        for arm in having[1:]:
            run, first = arm.runs[task], having[0].runs[task]
            if run.samples and first.samples:
                number = sum(_other_tokens(sample, first.samples[key]) for key, sample in run.samples.items())
                told = f"{number} of {len(run.samples)} documents" if number else ""
            else:
                differing = arms_settings.compare(first.settings, run.settings, "arms")
                told = "documents" if any(each.field == "tokens" for each in differing) else ""
            if told:
                yield (
                    f"{task}: arm {arm.name!r} was asked {told} with another prompt or other token ids than arm "
                    f"{having[0].name!r}: use the same --apply_chat_template, --system_instruction, chat_template_args "
                    "and tokenizer"
                )


def _other_tokens(sample: Sample, other: Sample) -> bool:
    pairs = [
        (sample.prompt_hash, other.prompt_hash),
        (sample.record.get("tokens"), other.record.get("tokens")),
    ]
    return any(one and another and one != another for one, another in pairs)


def _other_settings(arms: Sequence[Arm]) -> list[str]:
    """Every setting that is warned of, once for all arms and tasks.

    Raises:
        OptionError: Arms whose figures are of other things: rows, prompts, splits.
    """
    runs = {task: {arm.name: arm.runs[task].settings for arm in arms if task in arm.runs} for task in TASKS}
    alike = "evaluate the arms alike before you read anything into small differences"
    # Prompts and token ids are compared document by document.
    return [f"{difference}: {alike}" for difference in arms_settings.differing(runs, ignored=("tokens",))]


def _left_out(arms: Sequence[Arm]) -> Iterator[str]:
    """Tasks that an arm was asked about chosen rows only."""
    for arm in arms:
        missing = [task for task in arm.of_chosen_rows if task not in arm.runs]
        if missing:
            yield (
                f"arm {arm.name!r} has runs of {', '.join(missing)} about some rows only (option forget_rows), which "
                "this report leaves out: evaluate that arm without forget_rows"
            )


def _same_model(arms: Sequence[Arm]) -> Iterator[str]:
    """An arm that is the base, full or retain arm: an adapter was not loaded, or one model was evaluated twice."""
    for number, arm in enumerate(arms):
        for other in arms[:number]:
            if other.name not in ("base", "full", "retain"):
                continue
            shared = [(task, run, other.runs[task]) for task, run in arm.runs.items() if task in other.runs]
            same = any(arms_settings.has_same_weights(run.settings, theirs.settings) for _, run, theirs in shared)
            rows = next((task for task, run, theirs in shared if _same_losses(run, theirs)), None)
            if same or rows:
                what = (
                    f"equals the {other.name} arm's in every row of {rows}"
                    if rows
                    else "is a model of the same weights"
                )
                yield (
                    f"arm {arm.name!r} {what}"
                    + ("" if rows else f" as the {other.name} arm")
                    + ": was the adapter loaded (peft=, lora_local_path=), and the right path given?"
                )


def _same_losses(run: TaskRun, other: TaskRun) -> bool:
    """Whether two runs have the same losses in every row, which no two models have."""
    if not run.samples or not other.samples:
        return False
    pairs = [
        (sample.record.get("losses"), other.samples[row].record.get("losses")) for row, sample in run.samples.items()
    ]
    return all(one is not None and one == another for one, another in pairs)


def _other_references(arms: Sequence[Arm]) -> Iterator[str]:
    """A recorded retain reference that is another run than the retain arm of this report."""
    retain = next((arm for arm in arms if arm.name == "retain"), None)
    run = retain.runs.get("tofu_forget_quality") if retain else None
    if run is None or not run.samples:
        return
    ratios = {key: as_float(sample.record["truth_ratio"]) for key, sample in run.samples.items()}
    for arm in arms:
        theirs = arm.runs.get("tofu_forget_quality")
        for key, sample in (theirs.samples if theirs and theirs.samples else {}).items():
            recorded = as_float(sample.record.get("retain_truth_ratio"))
            if not math.isnan(recorded) and not math.isclose(recorded, ratios[key], rel_tol=1e-6, abs_tol=1e-12):
                yield (
                    f"arm {arm.name!r} was evaluated against another retain_reference than the arm 'retain' here: "
                    "this report computes forget quality anew, against the arm here"
                )
                break


def _other_probes(arms: Sequence[Arm]) -> Iterator[str]:
    """Probes of several audited arms read base, full and retain anew, and may have done it otherwise."""
    first: dict[str, tuple[Arm, list[float]]] = {}
    differing: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        for name, value in _mapping((arm.probe or {}).get("arms")).items():
            if name not in ("base", "full", "retain"):
                continue
            layers = _mapping(value).get("layers")
            found = [as_float(_mapping(each).get("top1")) for each in (layers if isinstance(layers, list) else ())]
            other, theirs = first.setdefault(name, (arm, found))
            if len(found) != len(theirs) or not np.allclose(found, theirs, atol=1e-6, equal_nan=True):
                differing.setdefault((other.name, arm.name), []).append(name)
    for (other_name, name), which in differing.items():
        yield (
            f"the probes of {other_name!r} and {name!r} have other figures of {', '.join(which)}: the report shows "
            f"those of {other_name!r}, and each arm's excess is the one over the retain arm of its own probe"
        )


def is_mini(arm: Arm) -> bool | None:
    """Whether an arm was evaluated on the miniature: its questions tell, else its options; None where neither does."""
    for run in arm.runs.values():
        for key, sample in (run.samples or {}).items():
            if key[0] == "forget":
                return sample.question in _mini_questions(run.split)
    sources = {run.source for run in arm.runs.values()} - {""}
    return "mini" in sources if sources else None


@functools.cache
def _mini_questions(split: str) -> frozenset[str]:
    try:
        rows = tofu.load(f"{split}_perturbed", tofu.resolve_source("mini"))
    except (DataError, OptionError):  # another split than TOFU's
        return frozenset()
    return frozenset(row["question"] for row in rows)


_FAMILY = re.compile(r"leak_rate_(?!low$|high$|any$|gist$)(\w+)")


def families(run: TaskRun) -> list[str]:
    """The prompt families or formats of a leak audit, in the order of its metrics."""
    return [match[1] for name in run.metrics if (match := _FAMILY.fullmatch(name))]


def sweep_points(folder: Path, results: Results | None = None) -> Mapping[str, Any]:
    """A sweep's `selection.json`, with a leak rate for each run that has been audited since.

    Args:
        folder: The sweep's directory, or the file.
        results: The arms that the audits are to be drawn beside. What cannot stand beside them is left out, and they
            get a warning of it; None takes every audit.

    Returns:
        The selection; `settings` holds what the selected run was trained with, as far as the sweep says it.

    Raises:
        OptionError: There is none, it cannot be read, or an audit is of another split or task version.
    """
    file = folder / "selection.json" if folder.is_dir() else folder
    if not file.is_file():
        raise OptionError(f"--sweep {folder} has no selection.json: run lm-eval-tofu select {folder} first")
    selection = dict(_json(file))
    runs = selection.get("runs")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) and "run" in run for run in runs):
        raise OptionError(f"--sweep {file} lists no runs: run lm-eval-tofu select {file.parent} again")
    for run in runs:
        run |= {
            name: as_float(run[name]) for name in ("forget_quality", "ks_statistic", "model_utility") if name in run
        }
        audits = sorted((file.parent / "runs" / str(run["run"])).rglob("results_*.json"), key=lambda path: path.name)
        for path in audits:
            content = _json(path)
            metrics = _metrics(_mapping(content.get("results")).get(_DRAWN))
            if "leak_rate" in metrics and (results is None or _fits(str(run["run"]), path, content, results)):
                run["leak_rate"] = metrics["leak_rate"]
    selection["settings"] = _selected_settings(file.parent, selection)
    return selection


_DRAWN = "tofu_novel_recall"
"""The audit whose leak rate is drawn for a sweep's runs."""


def _fits(run: str, path: Path, content: Mapping[str, Any], results: Results) -> bool:
    """Whether a run's audit can be drawn beside the arms.

    Raises:
        OptionError: It is of another split or task version.
    """
    ours = task_versions()[_DRAWN]
    version = _version(content, _DRAWN)
    if version != ours:
        raise OptionError(
            f"--sweep: run {run} ({path}) was audited with {_DRAWN} version {version}, this is version {ours}: audit "
            "it again, or delete that file"
        )
    split = _metadata(content, _DRAWN).get("forget_split") or "forget10"
    if split != results.split:
        raise OptionError(
            f"--sweep: run {run} ({path}) was audited on {split}, the arms are on {results.split}: name the sweep that "
            "belongs to these arms"
        )
    theirs = next((arm.runs[_DRAWN].documents for arm in results.arms if _DRAWN in arm.runs), None)
    documents = _mapping(_mapping(content.get("n-samples")).get(_DRAWN)).get("effective")
    if not _is_partial(content, _DRAWN) and (theirs is None or documents == theirs):
        return True
    warning = f"the audit of the sweep's run {run} is left out: it asked other documents of {_DRAWN} than the arms were"
    log.warning("%s (%s)", warning, path)
    results.warnings.append(warning)
    return False


_OF_A_SWEEP = ("method", "epochs", "learning_rate", "alpha", "beta", "gamma", "margin", "weight_decay", "lora_r")


def _selected_settings(folder: Path, selection: Mapping[str, Any]) -> dict[str, Any]:
    """What the selected run was trained with: the point of the grid, and what the sweep's file sets for all runs."""
    selected: Mapping[str, Any] = next(
        (run for run in selection["runs"] if run["run"] == selection.get("selected")), {}
    )
    file = folder / "sweep.json"
    sweep = _json(file) if file.is_file() else {}
    given = {**sweep, **_mapping(sweep.get("training")), **_mapping(selected.get("point"))}
    return {name: given[name] for name in _OF_A_SWEEP if isinstance(given.get(name), str | int | float)}
