"""The arms of a report: one model each, with its runs as lm-eval and the white-box audits wrote them."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import DataError, OptionError

CONTROLS = ("base", "full", "retain")
ROLES = (*CONTROLS, "unlearned")
"""Names of arms that have a meaning; all others are audited as `unlearned` is."""

_FAMILY = re.compile(r"leak_rate_(?!low$|high$|any$|gist$)(\w+)")

Key = tuple[str, int, str]
"""A document: set, row and prompt family (empty where a task has none)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a samples file, without what the report does not need."""

    record: Mapping[str, Any]  # see lm_eval_tofu.tasks.records
    question: str
    answer: str  # the gold answer
    messages: Sequence[Mapping[str, str]] = ()  # the turns that asked, where they are not the question alone
    opening: str = ""  # the words that began the model's turn
    prompt_hash: str | None = None  # lm-eval's, of the rendered prompt


@dataclass(frozen=True, slots=True)
class TaskRun:
    """The newest run of one task on one arm."""

    task: str
    split: str  # forget split
    path: Path  # the results file
    options: Mapping[str, Any]  # of our tasks, as the run was given them, and its chat_template_args
    documents: int | None  # how many were asked; None where the results do not say
    of: int | None  # how many there are with these options; likewise
    metrics: Mapping[str, float]  # without lm-eval's filter; what is no number is NaN
    settings: ArmSettings
    samples: Mapping[Key, Sample] | None  # in the order of the rows; None without a samples file

    @property
    def source(self) -> str:
        """The data, as the option `tofu` names them; empty for the default."""
        return str(self.options.get("tofu") or "")

    @property
    def is_subset(self) -> bool:
        """Evaluated on a subset (--limit, --samples)."""
        return self.documents is not None and self.documents < (self.of or 0)

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """The records in the order of the rows; empty without samples."""
        return [sample.record for sample in (self.samples or {}).values()]

    @property
    def families(self) -> dict[str, float]:
        """The leak rate that the results state for each prompt family or output format, in their order."""
        found = ((_FAMILY.fullmatch(name), value) for name, value in self.metrics.items())
        return {match[1]: value for match, value in found if match}


class ToolRun(NamedTuple):
    """The newest results of a white-box audit."""

    metrics: Mapping[str, float]  # what is no number is NaN
    details: Mapping[str, Any] = {}  # what the metrics were computed from
    split: str | None = None  # forget split; None where the results do not say


@dataclass(frozen=True, slots=True)
class Arm:
    """One model."""

    name: str  # as the user calls it
    path: Path  # where its results are
    runs: Mapping[str, TaskRun] = field(default_factory=dict)  # by task
    tools: Mapping[str, ToolRun] = field(default_factory=dict)  # the white-box audits, by name
    of_chosen_rows: Sequence[str] = ()  # tasks with runs about some rows only (option forget_rows), which are left out

    def samples(self, task: str) -> Mapping[Key, Sample]:
        """The samples of a task; empty without any."""
        return (self.runs[task].samples if task in self.runs else None) or {}

    def records(self, task: str) -> list[Mapping[str, Any]]:
        """The records of a task in the order of the rows; empty without samples."""
        return self.runs[task].records if task in self.runs else []


@dataclass(frozen=True, slots=True)
class Results:
    """All arms, checked."""

    arms: list[Arm]  # known roles first, in their usual order
    split: str  # the forget split of all of them
    warnings: list[str]  # differences between arms that may explain a difference in figures

    def arm(self, name: str) -> Arm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def audited(self) -> list[Arm]:
        """The arms that the report is about: all that have no role of their own, else the full arm as a control."""
        own = [arm for arm in self.arms if arm.name not in CONTROLS]
        return own or [arm for arm in self.arms if arm.name == "full"] or self.arms[:1]


def is_mini(arm: Arm) -> bool | None:
    """Whether an arm was evaluated on the miniature, by its questions, else its options; None without either."""
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
