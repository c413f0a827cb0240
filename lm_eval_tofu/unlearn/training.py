"""What all methods of training share: the trainer's settings, its progress bar, and an estimate of memory."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import ProgressCallback, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available
from transformers.utils import logging as transformers_logging

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn.options import TrainingConfig

log = logging.getLogger(__name__)


class QuietProgress(ProgressCallback):
    """One bar, with the last losses in its own line: transformers prints a line at every log and a bar at every save.

    Attributes:
        shown: What of the log is shown at the bar's end: the log's name, and its label.
    """

    def __init__(self, shown: Mapping[str, str] | None = None) -> None:
        """Show `shown`, by default the loss."""
        super().__init__()
        self.shown = {"loss": "loss"} if shown is None else shown

    def on_train_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Open the bar; while it is open, transformers shows no other."""
        self.others_were_on = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        super().on_train_begin(args, state, control, **kw)

    def on_train_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Close the bar."""
        super().on_train_end(args, state, control, **kw)
        if self.others_were_on:
            transformers_logging.enable_progress_bar()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
        """Show the losses at the end of the bar."""
        if self.training_bar is not None and logs is not None and "loss" in logs:
            self.training_bar.set_postfix(
                {label: f"{float(logs[name]):.4g}" for name, label in self.shown.items() if name in logs}
            )


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


def training_arguments(
    options: TrainingConfig, folder: Path, examples: int, arguments_class: type = TrainingArguments, **more: Any
) -> Any:
    """The trainer's settings: AdamW, linear warm-up and decay, a checkpoint after each epoch in `folder`.

    Args:
        options: What the user chose; its `training` goes before the defaults here.
        folder: Where the trainer keeps the checkpoint of the last epoch.
        examples: Number of rows, from which follow the steps of an epoch and so of the warm-up.
        arguments_class: `TrainingArguments` or a class derived from it.
        **more: Further fields of that class.

    Returns:
        An `arguments_class`.
    """
    for name in ("bf16", "fp16", "tf32"):
        if options.training.get(name) and not options.training.get("use_cpu") and not torch.accelerator.is_available():
            raise OptionError(f"--{name} needs a GPU and there is none: leave it out to train in float32")
    defaults = {
        "optim": "adamw_torch",
        "lr_scheduler_type": "linear",
        "bf16": precision(options.dtype) == "mixed",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_strategy": "epoch",
        # Its filter would report a loss that is not a number as the last one that was.
        "logging_nan_inf_filter": False,
        "disable_tqdm": False,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    # Beside a strategy of epochs the trainer would ignore a number of steps without a word.
    defaults |= {f"{name}_strategy": "steps" for name in ("logging", "save") if f"{name}_steps" in options.training}
    with translated_refusals(options, ValueError, TypeError, ImportError, RuntimeError, OSError):
        arguments = arguments_class(
            output_dir=str(folder),
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=options.batch_size,
            gradient_accumulation_steps=options.gradient_accumulation,
            weight_decay=options.weight_decay,
            seed=options.seed,
            remove_unused_columns=False,
            **{**defaults, **options.training, **more},
        )
    if precision(options.dtype) == "bfloat16" and getattr(options, "lora_r", None) is None:
        # Neighbours of a number in [2^k, 2^(k+1)) are 2^(k-7) apart, and AdamW's steps are about as long as its rate.
        log.warning(
            "--dtype bfloat16 keeps the weights in bfloat16 too, and rounds a step of --learning-rate %g away on every "
            "weight above %.2g: give mixed or float32, or --lora-r to unlearn",
            *(options.learning_rate, 2.0 ** math.ceil(8 + math.log2(options.learning_rate))),
        )
    if "warmup_steps" not in options.training:
        if options.warmup >= options.epochs:
            log.warning(
                "--epochs %d is all warm-up (--warmup %g epochs): the learning rate rises to --learning-rate at the "
                "last step and never falls: give a shorter --warmup, such as 0.1, or more epochs",
                *(options.epochs, options.warmup),
            )
        arguments.warmup_steps = round(options.warmup * steps_per_epoch(arguments, examples))
    return arguments


@contextmanager
def translated_refusals(options: TrainingConfig, *kinds: type[Exception]) -> Iterator[None]:
    """Name the options where transformers refuses them: they contradict each other, or a library is missing.

    Args:
        options: What the user chose.
        *kinds: What transformers raises then; anything else is a fault of the program and passes.

    Raises:
        OptionError: Instead of what transformers raised.
    """
    try:
        yield
    except OptionError:
        raise
    except kinds as error:
        given = ", ".join(f"--{name} {value}" for name, value in options.training.items())
        raise OptionError(
            f"{given or 'the options'}: the trainer refuses: {first_line(error)}: change or leave out that option"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of another library's message, without its full stop."""
    return str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")


def effective_batch(arguments: Any) -> int:
    """Rows a step: batch size x accumulation x devices."""
    return int(arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size)


def steps_per_epoch(arguments: Any, examples: int) -> int:
    """Optimizer steps that one pass over `examples` rows takes; the last may be of fewer rows."""
    batches = math.ceil(examples / int(arguments.train_batch_size * arguments.world_size))
    return math.ceil(batches / int(arguments.gradient_accumulation_steps))


def all_steps(arguments: Any, examples: int) -> int:
    """Optimizer steps of the whole run."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    return math.ceil(float(arguments.num_train_epochs) * steps_per_epoch(arguments, examples))


class MemoryPlan(NamedTuple):
    """What training holds on one device at the least, in bytes; activations of the layers come on top.

    Attributes:
        weights: The model's.
        reference: A frozen copy of the model; 0 where none is kept.
        gradients: Of the parameters that are trained.
        optimizer: Two moments for each of them, as AdamW keeps.
        logits: Logits of one batch, their float32 log-probabilities and the gradient of those.
    """

    weights: int
    reference: int
    gradients: int
    optimizer: int
    logits: int

    def __str__(self) -> str:
        """The sum and its parts, in GiB or MiB."""
        size, unit = (1 << 30, "GiB") if sum(self) >= 1 << 30 else (1 << 20, "MiB")
        parts = ", ".join(f"{name} {value / size:.1f}" for name, value in self._asdict().items() if value)
        return f"{sum(self) / size:.1f} {unit} and the layers' activations ({parts})"


def memory_plan(model: Any, answer_tokens: float, reference_copy: bool = False) -> MemoryPlan:
    """Estimate what one device must hold; sharding (FSDP, DeepSpeed) divides the first four by the devices.

    Args:
        model: A transformers or PEFT model.
        answer_tokens: Mean number of positions with loss in a batch.
        reference_copy: Whether a frozen copy of the model is kept.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    logits = int(answer_tokens * model.config.get_text_config().vocab_size * 4 * 3)
    return MemoryPlan(weights, weights if reference_copy else 0, trained, 2 * trained, logits)
