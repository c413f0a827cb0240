"""Refuses arms whose figures cannot be compared, and warns of differences that may explain a difference in figures."""

import difflib
import math
from collections.abc import Iterator, Sequence

import numpy as np

from lm_eval_tofu import arm as arms_settings
from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.files import as_float
from lm_eval_tofu.report import probes
from lm_eval_tofu.report.arms import CONTROLS, ROLES, Arm, Sample, TaskRun
from lm_eval_tofu.tasks.reported import TASKS

_FIX = "evaluate both without --limit, with the same data (tofu) and the same families and formats"


def check(arms: Sequence[Arm]) -> tuple[str, list[str]]:
    """Compare arms.

    Args:
        arms: In the report's order.

    Returns:
        The forget split of all of them, and the warnings.

    Raises:
        OptionError: They differ in split, rows or prompts.
    """
    split = _same_split(arms)
    _check_rows(arms)
    settings = _other_settings(arms)
    _check_numbers(arms)
    warnings = [*_near_roles(arms), *_left_out(arms), *_other_prompts(arms), *settings]
    return split, [*warnings, *_other_references(arms), *_other_probes(arms), *_same_model(arms)]


def _pairs(arms: Sequence[Arm], *, with_first: bool = False) -> Iterator[tuple[str, Arm, Arm]]:
    """Every task with every two arms that have it, or with the first one and each other."""
    for task in TASKS:
        having = [arm for arm in arms if task in arm.runs]
        for number, arm in enumerate(having):
            for other in having[: min(number, 1) if with_first else number]:
                yield task, other, arm


# What is refused: figures of these would look comparable and are not.


def _same_split(arms: Sequence[Arm]) -> str:
    found = [
        each
        for arm in arms
        for each in (
            *((arm, task, run.split, run.path) for task, run in arm.runs.items()),
            *((arm, task, run.split, arm.path) for task, run in arm.tools.items() if run.split),
        )
    ]
    for arm, task, split, path in found:
        if split != found[0][2]:
            raise OptionError(
                f"arm {arm.name!r} ({path}) is a run of {task} on {split}, arm {found[0][0].name!r} is on "
                f"{found[0][2]}: evaluate all arms with the same forget_split"
            )
    return found[0][2] if found else tofu.DEFAULT_FORGET_SPLIT


def _check_rows(arms: Sequence[Arm]) -> None:
    for task, other, arm in _pairs(arms):
        ours, theirs = arm.runs[task].samples, other.runs[task].samples
        if ours is None or theirs is None:
            continue
        differing = theirs.keys() ^ ours.keys()
        which = f"arms {other.name!r} and {arm.name!r} have other rows of {task}"
        if differing:
            key = min(differing)
            have, lack = (other, arm) if key in theirs else (arm, other)
            family = f" ({key[2]})" if key[2] else ""
            raise OptionError(
                f"{which}: {len(theirs)} and {len(ours)}; {key[0]} row {key[1]}{family} is in {have.name!r} and not in "
                f"{lack.name!r}: {_FIX}"
            )
        for key, sample in ours.items():
            if (sample.question, sample.answer) != (theirs[key].question, theirs[key].answer):
                raise OptionError(f"{which}: {key[0]} row {key[1]} is another question or answer: {_FIX}")


def _check_numbers(arms: Sequence[Arm]) -> None:
    """Without samples, the number of documents is all that tells one subset of them from another."""
    for task, other, arm in _pairs(arms):
        run, first = arm.runs[task], other.runs[task]
        if run.samples is not None and first.samples is not None:
            continue
        for theirs, ours in ((first.documents, run.documents), (first.of, run.of)):
            if theirs is not None and ours is not None and theirs != ours:
                raise OptionError(
                    f"arms {other.name!r} and {arm.name!r} have other rows of {task}: {theirs} and {ours} documents: "
                    f"{_FIX}"
                )


def _other_settings(arms: Sequence[Arm]) -> list[str]:
    """Every setting that is warned of, once for all arms and tasks; some differences are refused."""
    runs = {task: {arm.name: arm.runs[task].settings for arm in arms if task in arm.runs} for task in TASKS}
    alike = "evaluate the arms alike before you read anything into small differences"
    # Prompts and token ids are compared document by document.
    return [f"{difference}: {alike}" for difference in arms_settings.differing(runs, ignored=("tokens",))]


# What is warned of.


def _near_roles(arms: Sequence[Arm]) -> Iterator[str]:
    """Names that look like a role's where no arm has that role: such an arm would be audited as an unlearned one."""
    names = {arm.name for arm in arms}
    for arm in arms:
        near = difflib.get_close_matches(arm.name.lower(), CONTROLS, n=1, cutoff=0.75)
        if arm.name not in ROLES and near and near[0] not in names:
            yield (
                f"the arm {arm.name!r} counts as an unlearned model: did you mean {near[0]!r}? Controls are named "
                f"{', '.join(CONTROLS)}; write {near[0]}={arm.path}"
            )


def _left_out(arms: Sequence[Arm]) -> Iterator[str]:
    """Tasks that an arm was asked about chosen rows only."""
    for arm in arms:
        missing = [task for task in arm.of_chosen_rows if task not in arm.runs]
        if missing:
            yield (
                f"arm {arm.name!r} has runs of {', '.join(missing)} about some rows only (option forget_rows), which "
                "this report leaves out: evaluate that arm without forget_rows"
            )


def _other_prompts(arms: Sequence[Arm]) -> Iterator[str]:
    for task, other, arm in _pairs(arms, with_first=True):
        run, first = arm.runs[task], other.runs[task]
        if run.samples and first.samples:
            number = sum(_other_tokens(sample, first.samples[key]) for key, sample in run.samples.items())
            which = f"{number} of {len(run.samples)} documents" if number else ""
        else:
            differing = arms_settings.compare(first.settings, run.settings, "arms")
            which = "documents" if any(each.field == "tokens" for each in differing) else ""
        if which:
            yield (
                f"{task}: arm {arm.name!r} was asked {which} with another prompt or other token ids than arm "
                f"{other.name!r}: use the same --apply_chat_template, --system_instruction, chat_template_args and "
                "tokenizer"
            )


def _other_tokens(sample: Sample, other: Sample) -> bool:
    pairs = [(sample.prompt_hash, other.prompt_hash), (sample.record.get("tokens"), other.record.get("tokens"))]
    return any(one and another and one != another for one, another in pairs)


def _other_references(arms: Sequence[Arm]) -> Iterator[str]:
    """A recorded retain reference that is another run than the retain arm of this report."""
    task = "tofu_forget_quality"
    retain = next((arm for arm in arms if arm.name == "retain"), None)
    if retain is None or not retain.samples(task):
        return
    ratios = {key: as_float(sample.record["truth_ratio"]) for key, sample in retain.samples(task).items()}
    for arm in arms:
        for key, sample in arm.samples(task).items():
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
        for name in CONTROLS:
            curve = probes.curve_of(arm, name)
            if curve is None:
                continue
            other, theirs = first.setdefault(name, (arm, curve.y))
            if len(curve.y) != len(theirs) or not np.allclose(curve.y, theirs, atol=1e-6, equal_nan=True):
                differing.setdefault((other.name, arm.name), []).append(name)
    for (other_name, name), which in differing.items():
        yield (
            f"the probes of {other_name!r} and {name!r} have other figures of {', '.join(which)}: the report shows "
            f"those of {other_name!r}, and each arm's excess is the one over the retain arm of its own probe"
        )


def _same_model(arms: Sequence[Arm]) -> Iterator[str]:
    """An arm that is the base, full or retain arm: an adapter was not loaded, or one model was evaluated twice."""
    for number, arm in enumerate(arms):
        for other in arms[:number]:
            if other.name not in CONTROLS:
                continue
            shared = [(task, run, other.runs[task]) for task, run in arm.runs.items() if task in other.runs]
            same = any(arms_settings.has_same_weights(run.settings, theirs.settings) for _, run, theirs in shared)
            rows = next((task for task, run, theirs in shared if _same_losses(run, theirs)), None)
            if same or rows:
                what = (
                    f"equals the {other.name} arm's in every row of {rows}"
                    if rows
                    else f"is a model of the same weights as the {other.name} arm"
                )
                yield (
                    f"arm {arm.name!r} {what}: was the adapter loaded (peft=, lora_local_path=), and the right path "
                    "given?"
                )


def _same_losses(run: TaskRun, other: TaskRun) -> bool:
    """Whether two runs have the same losses in every row, which no two models have."""
    if not run.samples or not other.samples:
        return False
    pairs = [
        (sample.record.get("losses"), other.samples[row].record.get("losses")) for row, sample in run.samples.items()
    ]
    return all(one is not None and one == another for one, another in pairs)
