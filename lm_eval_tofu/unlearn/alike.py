"""Compares the evaluation settings of runs by the rules for arms of a report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lm_eval_tofu import arm, files
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.fingerprints import weights_fingerprint


def settings_below(results: Path, task: str) -> ArmSettings | None:
    """The recorded settings of a task in the newest results file below a directory; None where none has them."""
    for file in reversed(files.results_files(results)):
        try:
            found = arm.settings_in(json.loads(file.read_text(encoding="utf-8")), task)
        except (OSError, ValueError, AttributeError):
            continue
        if found is not None:
            return found
    return None


def check_runs(results: Mapping[str, Path], models: Mapping[str, Path], tasks: Sequence[str]) -> list[str]:
    """Compare the runs of a sweep with each other, and each with its checkpoint.

    Args:
        results: Directory of the results, by run.
        models: Directory of the checkpoint, by run; it may have been deleted.
        tasks: What all of them were evaluated on.

    Returns:
        Differences that may explain a difference in figures, in words.

    Raises:
        OptionError: Runs were asked other things, or a run's results are of other weights than its checkpoint.
    """
    settings = {task: {run: settings_below(folder, task) for run, folder in results.items()} for task in tasks}
    for task, of_runs in settings.items():
        for run, found in of_runs.items():
            now = weights_fingerprint(models[run]) if found and models[run].is_dir() else None
            if found and now and found.weights and found.weights.startswith("files:") and found.weights != now:
                raise OptionError(
                    f"the results of run {run} ({task}) are of other weights than its checkpoint {models[run]}: delete "
                    f"{results[run]}, and run the sweep again"
                )
    messages: list[str] = []
    for task, of_runs in settings.items():
        for message in differences(task, of_runs):
            if message not in messages:
                messages.append(message)
    return messages


def differences(task: str, runs: Mapping[str, ArmSettings | None], ignored: Sequence[str] = ()) -> list[str]:
    """Compare runs of one task with the first of them.

    Args:
        task: The task, for messages.
        runs: By name; None where the settings are not recorded.
        ignored: Fields that are meant to differ.

    Returns:
        Differences that are warned of, each once with the values and the runs that have them.
    """
    unknown = [name for name, found in runs.items() if found is None]
    known = {name: found for name, found in runs.items() if found is not None}
    messages = arm.differing({task: known}, ignored)
    if unknown:
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        messages.append(f"how {task} was evaluated is not recorded for {shown}")
    return messages
