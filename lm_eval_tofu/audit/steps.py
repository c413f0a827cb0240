"""A step of an audit: a command, and whether its results are there already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks.reported import TASKS

STEP_FILE = "step.json"


@dataclass(frozen=True)
class Step:
    """A command to be run.

    Attributes:
        arm: Whose results it makes.
        name: `evaluation`, or the white-box audit.
        folder: Where its results go.
        command: The command line.
        settings: What determines the results, whatever tasks are asked.
        tasks: Whose results it makes, and what determines each of them besides.
    """

    arm: str
    name: str
    folder: Path
    command: Sequence[str]
    settings: Mapping[str, Any]
    tasks: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What it does, for messages."""
        return f"{self.name} of {self.arm}"

    def record(self, seconds: float | None = None) -> dict[str, Any]:
        """What is stored beside the results."""
        return {"settings": self.settings, "tasks": self.tasks, "command": list(self.command), "seconds": seconds}


def numbered(folder: Path) -> list[Path]:
    """What lies in a directory under a number, in the order of the numbers."""
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def record_in(folder: Path) -> dict[str, Any] | None:
    """What was stored when a step was begun; None without a whole record."""
    try:
        record = files.read_json(folder / STEP_FILE)
    except OptionError:
        return None
    return record if record.keys() >= {"settings", "tasks", "command", "seconds"} else None


def is_complete(folder: Path, tasks: Mapping[str, Any]) -> bool:
    """Whether all results of some tasks were written, and the samples of those of lm_eval."""
    found = set()
    for file in files.results_files(folder):
        try:
            content = files.read_json(file)
        except OptionError:  # it was killed while it wrote
            continue
        for task in content.get("results", {}):
            if task in TASKS:
                samples = files.samples_of_results(file, task)
                asked = content.get("n-samples", {}).get(task, {}).get("effective")
                if not samples.is_file() or sum(1 for _ in files.lines(samples)) != asked:
                    continue
            found.add(task)
    return tasks.keys() <= found


def is_finished(step: Step) -> bool:
    """Whether a step's results are there, made with its settings, weights and references."""
    record = record_in(step.folder)
    if record is None or record["settings"] != step.settings or record["tasks"] != step.tasks:
        return False
    return is_complete(step.folder, step.tasks)


def estimate(waiting: Sequence[Step], steps: Sequence[Step]) -> str:
    """How long the waiting steps may take, by finished ones that did the same on another arm."""
    measured: dict[tuple[str, tuple[str, ...]], float] = {}
    for step in steps:
        seconds = (record_in(step.folder) or {}).get("seconds")
        if step not in waiting and seconds is not None:
            measured[step.name, tuple(step.tasks)] = seconds
    keys = [(step.name, tuple(step.tasks)) for step in waiting]
    known = [measured[key] for key in keys if key in measured]
    unknown = sorted({key[0] for key in keys if key not in measured})
    parts = [f"{counted(len(known))} about {sum(known) / 60:.1f} min, as on the other arms"] if known else []
    parts += [f"not measured yet: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts)


def counted(steps: int) -> str:
    """A number of steps in words."""
    return f"{steps} step{'' if steps == 1 else 's'}"
