"""Runs lm-eval on a checkpoint from Python, for sweeps and relearning, without the index of all other tasks.

`lm_eval`'s command line reads every built-in task's file at each start: half a minute, 54 times in a sweep of 54 runs.
The results are lm-eval's own, in its own files.
"""

import difflib
import importlib.util
import inspect
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import TASKS_DIR

_TRANSFORMERS_ARGUMENTS = {"device_map", "max_memory", "torch_dtype", "token", "use_safetensors", "weights_only"}
"""Arguments of `from_pretrained` that look like other arguments of lm-eval's backend."""

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

    from lm_eval_tofu.tasks.task import preflight

    check_machine(backend, model_args or {}, batch_size, device)
    if backend == "hf" and device is None:
        import torch

        # lm-eval's own default is a GPU, whether there is one or not.
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    arguments = {"pretrained": str(model), **(model_args or {})}
    merged = {**arguments, **(metadata or {})}
    preflight(tasks, merged)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tracker = EvaluationTracker(output_path=str(partial))
    results = simple_evaluate(
        model=_load(backend, arguments, batch_size, device),
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
    # As lm-eval records it where it loads the model itself.
    results["config"]["model"] = tracker.general_config_tracker.model_source = backend
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    _check_saved(partial, results["configs"])
    files.sync(partial)
    partial.rename(output)
    return files.newest_results(output)


def _check_saved(folder: Path, tasks: Iterable[str]) -> None:
    """Make sure that all files were written: lm-eval logs a failure (a full disk) and continues."""
    wanted = ["results_*.json", *(f"samples_{task}_*.jsonl" for task in tasks)]
    missing = [name for name in wanted if not any(folder.rglob(name))]
    if missing:
        raise OptionError(
            f"lm_eval could not write {', '.join(missing)} below {folder} (the log says why): make room, or name "
            "another directory"
        )


def check_results_name(option: str, model: Path) -> None:
    """Refuse a path, given by `option`, where the results of the model to be trained there could not be saved."""
    from lm_eval_tofu.tasks import checks

    checks.check_results_name(option, str(model))


def check_prompts(
    tasks: Sequence[str],
    metadata: Mapping[str, Any],
    *,
    apply_chat_template: bool,
    system_instruction: str | None,
    samples: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Check options, data and references of the tasks, and compare their prompts with those of the references.

    Args:
        tasks: Names of our tasks.
        metadata: Model arguments, of which the tokenizer is read, and the tasks' options.
        apply_chat_template: As lm-eval's flag.
        system_instruction: As lm-eval's option.
        samples: As lm-eval's option.

    Raises:
        TofuError: Options, data, references or tokenizer cannot be used together.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=dict(metadata))
    for name in tasks:
        task = manager.load([name])["tasks"][name]
        task.build_all_requests(
            samples=None if samples is None else samples.get(name),
            rank=0,
            world_size=1,
            apply_chat_template=apply_chat_template,
            system_instruction=system_instruction,
        )


def check_machine(
    backend: str, model_args: Mapping[str, Any], batch_size: int | str | None, device: str | None, prefix: str = "--"
) -> None:
    """Check the options of backend and machine, as far as that is possible before a model is loaded.

    Args:
        backend: `hf` or `vllm`.
        model_args: Model arguments of that backend.
        batch_size: As lm-eval's option.
        device: As lm-eval's option.
        prefix: Precedes the options' names in messages.
    """
    if batch_size is not None and not re.fullmatch(r"[1-9]\d*|auto(:[1-9]\d*)?", str(batch_size)):
        raise OptionError(f"{prefix}batch_size {batch_size} is no batch size: give a number from 1 up, or auto")
    if importlib.util.find_spec({"hf": "torch"}.get(backend, backend)) is None:
        raise OptionError(f"{prefix}backend {backend} is not installed: pip install 'lm-eval-tofu[{backend}]'")
    if backend == "hf":
        check_device(f"{prefix}device", device)
        _check_hf_arguments(model_args, prefix)


def check_device(option: str, device: str | None) -> None:
    """Refuse a device that torch cannot use."""
    if device is None:
        return
    import torch

    try:
        torch.empty(1, device=device)
    # torch without CUDA raises the second.
    except (RuntimeError, AssertionError) as error:
        what = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
        raise OptionError(f"{option} {device} cannot be used ({what}): use cpu, or leave it out") from error


def _check_hf_arguments(model_args: Mapping[str, Any], prefix: str) -> None:
    """Refuse a type that torch does not have, and a misspelt name of an argument."""
    import torch
    from lm_eval.models.huggingface import HFLM

    ours = set(inspect.signature(HFLM.__init__).parameters) - {"self", "kwargs"}
    for name, value in model_args.items():
        option = f"{prefix}model_args {name}={value}"
        close = difflib.get_close_matches(name, ours, n=1, cutoff=0.8)
        # Other names are passed on to transformers, which takes too many to list all.
        if name not in ours and name not in _TRANSFORMERS_ARGUMENTS and close:
            raise OptionError(f"{option}: {name} is no argument of hf: did you mean {close[0]}?")
        is_type = not isinstance(value, str) or value == "auto" or isinstance(getattr(torch, value, None), torch.dtype)
        if name.endswith("dtype") and not is_type:
            raise OptionError(f"{option} is no type: use float32, bfloat16, float16 or auto")


def _load(backend: str, arguments: Mapping[str, Any], batch_size: int | str | None, device: str | None) -> Any:
    """The model as lm-eval loads it, with an error that names its arguments."""
    from lm_eval.api.registry import get_model

    given = {"batch_size": batch_size, "max_batch_size": None, "device": device}
    try:
        return get_model(backend).create_from_arg_obj(dict(arguments), given)
    # Backends raise of every kind for arguments that they do not know, files that are missing, too little memory.
    except Exception as error:
        shown = ",".join(f"{name}={'***' if name == 'token' else value}" for name, value in arguments.items())
        raise OptionError(
            f"--backend {backend} cannot load a model with --model_args {shown} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}): check the arguments and the model's files"
        ) from error
