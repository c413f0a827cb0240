"""What every method of training shares: the trainer's settings and its progress bar."""

import math
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import ProgressCallback, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available, logging

from lm_eval_tofu.errors import OptionError


class TrainingOptions(Protocol):
    """The options that `training_arguments` reads; `FinetuneConfig` explains each."""

    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def gradient_accumulation(self) -> int: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def warmup(self) -> float: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102


class QuietProgress(ProgressCallback):  # type: ignore[misc]
    """One bar, with the last loss in its own line: transformers prints a line at every log and a bar at every save."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Open the bar; as long as it stands, transformers shows no other."""
        self.others_were_on = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        super().on_train_begin(args, state, control, **kw)

    def on_train_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Close the bar."""
        super().on_train_end(args, state, control, **kw)
        if self.others_were_on:
            logging.enable_progress_bar()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
        """Show the loss at the end of the bar."""
        if self.training_bar is not None and logs is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.4g}")


def precision(dtype: str) -> str:
    """Resolve the option `--dtype` on this machine.

    Args:
        dtype: float32, mixed, bfloat16 or auto.

    Returns:
        float32, mixed or bfloat16.

    Raises:
        OptionError: `mixed` on a device without bfloat16 arithmetic.
    """
    has_bfloat16 = bool(is_torch_bf16_gpu_available())
    if dtype == "auto":
        return "mixed" if has_bfloat16 else "float32"
    if dtype == "mixed" and not has_bfloat16:
        raise OptionError("--dtype mixed needs a GPU with bfloat16: leave it out to train in float32")
    return dtype


def weight_dtype(dtype: str) -> torch.dtype:
    """The type of the weights, in memory and in the checkpoint, for a value of `--dtype`."""
    return torch.bfloat16 if precision(dtype) == "bfloat16" else torch.float32


def training_arguments(options: TrainingOptions, folder: Path, examples: int) -> Any:
    """The trainer's settings: AdamW, linear warm-up and decay, a checkpoint after each epoch in `folder`.

    Args:
        options: What the user chose.
        folder: Where the trainer keeps the checkpoint of the last epoch.
        examples: Number of rows, from which follow the steps of an epoch and so of the warm-up.

    Returns:
        transformers' `TrainingArguments`.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        optim="adamw_torch",
        weight_decay=options.weight_decay,
        lr_scheduler_type="linear",
        bf16=precision(options.dtype) == "mixed",
        seed=options.seed,
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="epoch",
        # Its filter would report a loss that is not a number as the last one that was.
        logging_nan_inf_filter=False,
        disable_tqdm=False,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    arguments.warmup_steps = round(options.warmup * steps_per_epoch(arguments, examples))
    return arguments


def effective_batch(arguments: Any) -> int:
    """Rows a step: batch size x accumulation x devices."""
    return int(arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size)


def steps_per_epoch(arguments: Any, examples: int) -> int:
    """Optimizer steps that one pass over `examples` rows takes; the last may be of fewer rows."""
    batches = math.ceil(examples / int(arguments.train_batch_size * arguments.world_size))
    return math.ceil(batches / int(arguments.gradient_accumulation_steps))
