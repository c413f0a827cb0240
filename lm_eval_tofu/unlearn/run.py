"""Trains a loaded model and writes the finished checkpoint, for every method."""

import errno
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import ProgressCallback, TrainerCallback

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import checkpoint
from lm_eval_tofu.unlearn.data import IGNORED, Example
from lm_eval_tofu.unlearn.models import restore_use_cache
from lm_eval_tofu.unlearn.options import TrainingConfig
from lm_eval_tofu.unlearn.training import QuietProgress, all_steps, effective_batch, first_line, translated_refusals

log = logging.getLogger(__name__)

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run needs from before its training when it writes its checkpoint.

    Attributes:
        config: The options.
        arguments: transformers' `TrainingArguments` made of them.
        tokenizer: Goes into the checkpoint.
        use_cache: `lm_eval_tofu.unlearn.models.use_cache` of the model before training, which the trainer changes.
        before: Digests of the weights before training.
        resumed: The trainer's checkpoint to go on from; None: from the beginning.
    """

    config: TrainingConfig
    arguments: Any
    tokenizer: Any
    use_cache: bool | None
    before: checkpoint.Digests
    resumed: Path | None

    @property
    def weights_before(self) -> str:
        """The name of the weights before training, as another checkpoint's record has it."""
        return checkpoint.fingerprint(self.before)

    def announce(self, trainer: Any, what: str, examples: int, plan: object) -> None:
        """Say what is about to happen.

        Args:
            trainer: Built, not started.
            what: The kind of training and its data.
            examples: Rows of an epoch.
            plan: Memory, see `lm_eval_tofu.unlearn.training.memory_plan`.
        """
        log.info(
            "%s: %d examples, effective batch %d, %d steps, %d trainable parameters; memory a device: at least %s%s",
            *(what, examples, effective_batch(self.arguments), all_steps(self.arguments, examples)),
            *(trainable_parameters(trainer.model), plan),
            f"; resumed from {self.resumed.name}" if self.resumed else "",
        )

    def train(self, trainer: Any, shown: Mapping[str, str] | None = None) -> list[dict[str, float]]:
        """Train to the end.

        Args:
            trainer: A transformers `Trainer`.
            shown: What the progress bar shows of the log, see `QuietProgress`.

        Returns:
            What was logged of the losses, in order.

        Raises:
            OptionError: A loss was not finite, or the disk is full.
        """
        if not self.arguments.disable_tqdm:
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(QuietProgress(shown))
        begun = _Begun()
        # First of all, since those of the package do the first work of their own.
        trainer.callback_handler.callbacks.insert(0, begun)
        with translated_refusals(self.config, ImportError), self.writing():
            try:
                result = trainer.train(resume_from_checkpoint=str(self.resumed) if self.resumed else None)
            except (TypeError, ValueError) as error:
                if begun.begun:
                    raise
                # Options of optimizer, schedule or data loader, which transformers hands on unchecked.
                with translated_refusals(self.config, type(error)):
                    raise
        losses = [entry for entry in trainer.state.log_history if "loss" in entry]
        broken = [entry["epoch"] for entry in losses if not math.isfinite(entry["loss"])]
        if broken or not math.isfinite(result.training_loss):
            checkpoint.discard(self.config.output)
            raise OptionError(
                f"--learning-rate {self.config.learning_rate}: the loss was not finite in epoch "
                f"{math.ceil(min(broken, default=trainer.state.epoch))}, so nothing is written: lower it"
            )
        return losses

    def finish(
        self,
        trainer: Any,
        *,
        record: Mapping[str, Any],
        name: str = checkpoint.RECORD,
        save: Callable[[Path], Mapping[str, Any] | None] | None = None,
        describe: Callable[[Path], object],
    ) -> None:
        """Write the checkpoint.

        Args:
            trainer: After training.
            record: What the record has beside the entries that all records have.
            name: The record's file name.
            save: Writes the weights to a directory, called in every process; what it returns is added to the record.
                None: as the trainer does.
            describe: Writes the model card to a directory.

        Raises:
            OptionError: Training changed nothing, or the disk is full.
        """
        main, model = trainer.is_world_process_zero(), trainer.model

        def write(folder: Path) -> Mapping[str, Any] | None:
            added = None
            restore_use_cache(model, self.use_cache)
            if save is None:
                trainer.save_model(str(folder))
            else:
                added = save(folder)
            if main:
                # The trainer's own settings name folders of this machine; ours are in the record.
                (folder / "training_args.bin").unlink(missing_ok=True)
                # The template within tokenizer_config.json, where every release reads it.
                self.tokenizer.save_pretrained(folder, save_jinja_files=False)
                checkpoint.write_old_names(folder)
                describe(folder)
            return added

        with self.writing():
            checkpoint.finish(
                self.config.output,
                save=write,
                before=self.before,
                main_process=main,
                wait=trainer.accelerator.wait_for_everyone,
                name=name,
                record={
                    **record,
                    "apply_chat_template": self.config.apply_chat_template,
                    "system_prompt": self.config.system_prompt,
                    "template_args": dict(self.config.template_args),
                    "effective_batch": effective_batch(self.arguments),
                    "steps": trainer.state.global_step,
                    "trainable_parameters": trainable_parameters(model),
                    "device": self.arguments.device.type,
                    "devices": self.arguments.world_size,
                    "weight_dtype": str(model.dtype).removeprefix("torch."),
                },
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what a full or read-only disk makes other libraries raise into an error that names the fix."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            if not _cannot_write(error):
                raise
            raise OptionError(
                f"--output {self.config.output} cannot be written ({first_line(error)}): make room there, then run it "
                "again: it goes on from its last checkpoint"
            ) from error


class _Begun(TrainerCallback):
    """Tells whether optimizer, schedule and data loader are made, and training begins."""

    begun = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = True


def trainable_parameters(model: Any) -> int:
    """Number of weights that training changes."""
    return int(sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad))


def mean_answer_tokens(examples: Sequence[Example]) -> float:
    """Tokens with loss in a row, on average."""
    return sum(label != IGNORED for example in examples for label in example["labels"]) / len(examples)


def _cannot_write(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _UNWRITABLE
    # safetensors and torch.save have no error number.
    text = str(error)
    return "I/O error" in text or "PytorchStreamWriter" in text or "file write failed" in text
