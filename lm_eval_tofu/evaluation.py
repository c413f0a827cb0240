"""Runs lm-eval on a checkpoint from Python: what sweeps and relearning need, without the index of all other tasks.

`lm_eval`'s command line reads every built-in task's file at each start, half a minute that a sweep of 54 runs would pay
54 times. The results are lm-eval's own, in its own files.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import TASKS_DIR

log = logging.getLogger(__name__)

BENCHMARK = ("tofu_forget_quality", "tofu_model_utility")
"""The benchmark's own two metrics: all that a blind selection may see."""


def evaluate(
    model: Path | str,
    output: Path,
    *,
    tasks: Sequence[str] = BENCHMARK,
    backend: str = "hf",
    model_args: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    apply_chat_template: bool = True,
    system_instruction: str | None = None,
    batch_size: int | str | None = None,
    device: str | None = None,
    samples: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Evaluate a model and write results and samples as `lm_eval --log_samples --output_path OUTPUT` does.

    Args:
        model: Directory or hub name.
        output: Directory of the results; it appears when all of them are written.
        tasks: Names of our tasks.
        backend: `hf` or `vllm`.
        model_args: Further model arguments of that backend.
        metadata: The tasks' options.
        apply_chat_template: As lm-eval's flag.
        system_instruction: As lm-eval's option.
        batch_size: As lm-eval's option.
        device: As lm-eval's option; None, with hf: an accelerator where there is one, else the CPU.
        samples: As lm-eval's option: documents by task; tasks that it does not name are asked whole.

    Returns:
        The results' JSON file.

    Raises:
        OptionError: The output holds something already, or lm-eval could not write there.
        TofuError: A task's option, data or reference cannot be used; before the model is loaded.
    """
    if output.exists():
        raise OptionError(f"the results {output} exist already: delete them, or name another directory")
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    if backend == "hf" and device is None:
        import torch

        # lm-eval's own default is a GPU, whether there is one or not.
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    arguments = {"pretrained": str(model), **(model_args or {})}
    merged = {**arguments, **(metadata or {})}
    check(tasks, merged)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tracker = EvaluationTracker(output_path=str(partial))
    results = simple_evaluate(
        model=backend,
        model_args=arguments,
        tasks=list(tasks),
        task_manager=TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=merged),
        batch_size=batch_size,
        device=device,
        apply_chat_template=apply_chat_template,
        system_instruction=system_instruction,
        evaluation_tracker=tracker,
        metadata=merged,
        samples=None if samples is None else {task: list(chosen) for task, chosen in samples.items() if task in tasks},
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    _check_saved(partial, results["configs"])
    partial.rename(output)
    return newest_results(output)


def _check_saved(folder: Path, tasks: Iterable[str]) -> None:
    """Make sure that all files were written: lm-eval logs a failure (a full disk) and goes on.

    Raises:
        OptionError: One is missing.
    """
    wanted = ["results_*.json", *(f"samples_{task}_*.jsonl" for task in tasks)]
    missing = [name for name in wanted if not any(folder.rglob(name))]
    if missing:
        raise OptionError(
            f"lm_eval could not write {', '.join(missing)} below {folder} (the log says why): make room, or name "
            "another directory"
        )


def check(tasks: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Check the tasks' options, data and references; no model is needed for it.

    Raises:
        TofuError: One of them cannot be used.
    """
    from lm_eval_tofu.tasks.task import preflight

    preflight(tasks, metadata)


def newest_results(folder: Path) -> Path:
    """The newest `results_<time>.json` below a directory.

    Raises:
        OptionError: There is none.
    """
    found = list(folder.rglob("results_*.json"))
    if not found:
        raise OptionError(f"{folder} holds no results of lm_eval: run lm_eval --output_path {folder}")
    return max(found, key=lambda path: path.name)
