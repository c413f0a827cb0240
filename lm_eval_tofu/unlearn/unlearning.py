"""Unlearning a forget split of TOFU: how the unlearned arm is made from the full one."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import card, checkpoint, lora, options
from lm_eval_tofu.unlearn.methods import METHODS, Objective
from lm_eval_tofu.unlearn.models import check_model, load_model, load_tokenizer, pad_token_id, use_cache

log = logging.getLogger(__name__)

RECORD = "unlearning.json"
"""The record of how an unlearned checkpoint was made, beside its weights."""

SHOWN = {
    "loss": "loss",
    "forget_loss": "forget",
    "retain_loss": "retain",
    "retain_nll": "retain nats/token",
    "forget_share": "forget share",
}
"""What the progress bar and the record show of the trainer's log, see `UnlearningTrainer`."""


@dataclass(kw_only=True)
class UnlearnConfig(lora.LoraOptions, Objective, options.TrainingConfig):
    """The options of `lm-eval-tofu unlearn`."""

    model: str = field(
        metadata=options.option(
            "directory or hub name of the model to unlearn, which is the reference too", metavar="M"
        )
    )
    forget_split: str = field(
        metadata=options.option(
            f"{', '.join(tofu.FORGET_SPLITS)}; what is kept is the retain split that goes with it", metavar="SPLIT"
        )
    )
    retain_rows: tuple[int, ...] | None = field(
        default=None,
        metadata=options.option(
            "rows of the retain split to keep, from 0, such as 0-399 (default: all)",
            metavar="ROWS",
            parse=partial(tofu.row_numbers, "--retain-rows"),
        ),
    )
    epochs: int = 10
    learning_rate: float = 5e-5

    @property
    def retain_split(self) -> str:
        """The retain split that goes with the forget split."""
        return tofu.FORGET_SPLITS[self.forget_split]

    @property
    def kept(self) -> str:
        """What is kept, for a person."""
        if not self.has_retain_rows:
            return "nothing"
        return self.retain_split if self.retain_rows is None else f"{len(self.retain_rows)} rows of {self.retain_split}"

    def check(self) -> None:
        """Check what can be checked without reading data or model."""
        options.TrainingConfig.check(self)
        if self.forget_split not in tofu.FORGET_SPLITS:
            what = "is what is kept" if self.forget_split in tofu.FORGET_SPLITS.values() else "is unknown"
            raise OptionError(f"--forget-split {self.forget_split!r} {what}: use {', '.join(tofu.FORGET_SPLITS)}")
        Objective.check(self)
        if self.training.get("train_sampling_strategy") == "group_by_length":
            raise OptionError("--train_sampling_strategy group_by_length does not fit pairs of rows: leave it out")
        lora.LoraOptions.check(self)


def parser() -> argparse.ArgumentParser:
    """The options of `lm-eval-tofu unlearn`, to be a parser's parent."""
    return options.parser_of(
        UnlearnConfig, "lm-eval-tofu unlearn --model MODEL --forget-split SPLIT --output DIR [option ...]"
    )


def run(args: argparse.Namespace) -> None:
    """Run `lm-eval-tofu unlearn`; see `unlearn`."""
    unlearn(options.from_arguments(UnlearnConfig, args))


def unlearn(config: UnlearnConfig, callbacks: Sequence[Any] = ()) -> Path:
    """Unlearn a forget split, or resume where an earlier run with the same options was cut off.

    Args:
        config: What to do.
        callbacks: Further transformers `TrainerCallback` objects.

    Returns:
        The checkpoint's directory: safetensors weights, tokenizer with chat template, generation config, model card,
        and `unlearning.json`, which records the options, the data's fingerprints, the reference and the libraries'
        versions.

    Raises:
        OptionError: An option cannot be used; before any model is loaded, except where only the weights can tell.
        DataError: The data cannot be read.
        PromptError: The tokenizer and the options give no prompt.
    """
    config.check()
    checkpoint.check_output(config.output, config.overwrite)
    source = tofu.resolve_source(config.tofu, config.revision)
    splits = [config.forget_split, config.retain_split]
    data = {split: tofu.fingerprint(source, split) for split in splits}
    forget_rows, retain_rows = (tofu.load(split, source) for split in splits)
    if config.retain_rows is not None:
        tofu.check_row_numbers("--retain-rows", config.retain_rows, config.retain_split, len(retain_rows))
        retain_rows = [retain_rows[number] for number in config.retain_rows]
    check_model(config.model)
    if config.reference_cache is not None:
        _check_cache(Path(config.reference_cache))
    if config.lora_r is not None:
        lora.check_installed()

    # Imported only now: wrong options are answered at once.
    from transformers import set_seed

    from lm_eval_tofu.unlearn import training
    from lm_eval_tofu.unlearn.data import encode_rows
    from lm_eval_tofu.unlearn.run import Run, mean_answer_tokens
    from lm_eval_tofu.unlearn.trainer import UnlearningTrainer

    tokenizer, context = load_tokenizer(config.model, config.apply_chat_template)
    forget, retain = (encode_rows(tokenizer, rows, config.prompting, context) for rows in (forget_rows, retain_rows))
    arguments = trainer_arguments(config, len(forget))
    recorded = config.reproducibility_fields()
    with checkpoint.begun(config.output, {**recorded, "tofu": data}, arguments) as resumed:
        model = load_model(config.model, config.dtype)
        before, cached = checkpoint.parameter_digests(model), use_cache(model)
        reference = checkpoint.fingerprint(before)
        # Seeds the adapters' initial weights; the trainer seeds itself.
        set_seed(config.seed)
        if config.lora_r is not None:
            model = lora.attach(model, config.lora_r, config.lora_alpha, config.lora_target)
            if not config.lora_merge:
                before = lora.adapter_digests(model)
        run = Run(
            config=config, arguments=arguments, tokenizer=tokenizer, use_cache=cached, before=before, resumed=resumed
        )
        with training.translated_refusals(config, ValueError, ImportError, RuntimeError, OSError):
            trainer = UnlearningTrainer(
                model, arguments, forget, retain, pad_token_id(tokenizer), weights=reference, callbacks=list(callbacks)
            )
        pair = mean_answer_tokens(forget) + (mean_answer_tokens(retain) if config.has_retain_rows else 0)
        plan = training.memory_plan(
            model, arguments.per_device_train_batch_size * pair, config.needs_reference_model and config.lora_r is None
        )
        what = f"unlearning {config.forget_split} with {config.method}"
        what += f", a row of {config.kept} beside each example" if config.has_retain_rows else ""
        run.announce(trainer, what, len(forget), plan)
        losses = run.train(trainer, SHOWN)
        final = losses[-1] if losses else {}
        run.finish(
            trainer,
            name=RECORD,
            record={
                "method": config.method,
                "options": recorded,
                "trainer_options": _portable(arguments),
                "data": {"source": str(source), "fingerprints": data},
                "examples": len(forget),
                "retain_examples": len(retain) if config.has_retain_rows else 0,
                "reference": {
                    "weights": reference,
                    "logprobs": trainer.reference_path().stem.removeprefix("reference-"),
                },
                "losses": losses,
                "final": {name: final[name] for name in SHOWN if name in final},
            },
            save=(
                lambda folder: lora.save_merged(
                    trainer, config.model, config.dtype, folder, forget, pad_token_id(tokenizer)
                )
            )
            if config.lora_r is not None and config.lora_merge
            else None,
            describe=lambda folder: _describe(folder, config, card.dataset(source), final),
        )
        shown = ", ".join(f"{label} {final[name]:.4g}" for name, label in SHOWN.items() if name in final)
        log.info("checkpoint written to %s (%s)", config.output, shown or "no loss was logged")
    return config.output


def _check_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--reference_cache {folder} cannot be made ({error}): name another directory") from error


def trainer_arguments(config: UnlearnConfig, examples: int) -> Any:
    """The trainer's settings, an `UnlearningConfig`."""
    from lm_eval_tofu.unlearn import training
    from lm_eval_tofu.unlearn.trainer import UnlearningConfig

    given = {each.name: getattr(config, each.name) for each in fields(Objective)}
    return training.training_arguments(
        config, checkpoint.partial_folder(config.output), examples, UnlearningConfig, **given
    )


def _portable(arguments: Any) -> dict[str, Any]:
    """All of the trainer's options, but for those that name folders of this machine."""
    return {name: value for name, value in arguments.to_dict().items() if not name.endswith(("_dir", "_cache"))}


def _describe(folder: Path, config: UnlearnConfig, data: card.Dataset, final: Mapping[str, float]) -> None:
    what = data.part(f"`{config.forget_split}`")
    card.write(
        folder,
        title=config.output.name,
        model=config.model,
        data=data,
        summary=f"`{Path(config.model).name}` made to forget {what}: {METHODS[config.method]}.",
        settings={
            "method": config.method,
            "forget split": config.forget_split,
            "kept": config.kept,
            **{name: getattr(config, name) for name in ("alpha", "beta", "gamma", "epochs", "seed")},
            "learning rate": config.learning_rate,
            **{label: f"{final[name]:.4g}" for name, label in SHOWN.items() if name in final},
        },
        tags=["unlearning", config.method],
    )
