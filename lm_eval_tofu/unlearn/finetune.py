"""Supervised fine-tuning on TOFU: how the base, full and retain arms are made."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import card, checkpoint, options
from lm_eval_tofu.unlearn.models import check_model, load_model, load_tokenizer, pad_token_id, use_cache

log = logging.getLogger(__name__)

SPLITS = tuple(config for config in tofu.CONFIGS if not config.endswith("_perturbed"))
"""The configurations that can be trained on; the others ask the same questions with wrong answers beside the right."""

FROM_SCRATCH = ("nano", "nano-tofu")
"""The files in `presets/nano`; named here, so that a wrong one is refused before torch is imported."""


@dataclass(kw_only=True)
class FinetuneConfig(options.TrainingConfig):
    """The options of `lm-eval-tofu finetune`; exactly one of `model` and `from_scratch` is given."""

    split: str = field(metadata=options.option(f"{', '.join(SPLITS)}, or several joined by '+'"))
    model: str | None = field(
        default=None, metadata=options.option("directory or hub name of the model to start from", metavar="M")
    )
    from_scratch: str | None = field(
        default=None,
        metadata=options.option(
            f"train a new, small model with a tokenizer of its own: {', '.join(FROM_SCRATCH)}", metavar="NAME"
        ),
    )
    rows: tuple[int, ...] | None = field(
        default=None,
        metadata=options.option(
            "rows of the split to train on, from 0, such as 0-19,40; with one split only (default: all)",
            metavar="ROWS",
            parse=partial(tofu.row_numbers, "--rows"),
        ),
    )

    @property
    def splits(self) -> list[str]:
        """The configurations to train on, in the order given."""
        return self.split.split("+")

    def check(self) -> None:
        """Check what can be checked without reading data or model."""
        if (self.model is None) == (self.from_scratch is None):
            raise OptionError(
                f"--model {self.model} and --from-scratch {self.from_scratch}: give exactly one of the two"
            )
        if self.from_scratch is not None and self.from_scratch not in FROM_SCRATCH:
            raise OptionError(f"--from-scratch {self.from_scratch!r} is unknown: use {', '.join(FROM_SCRATCH)}")
        for name in self.splits:
            if name not in SPLITS:
                raise OptionError(
                    f"--split {self.split!r}: {name!r} is unknown: use {', '.join(SPLITS)}, or several joined by +"
                )
        if len(set(self.splits)) < len(self.splits):
            raise OptionError(f"--split {self.split!r} names a split twice: name each once and raise --epochs instead")
        if self.rows is not None and len(self.splits) > 1:
            raise OptionError(f"--rows belongs to one split, not to --split {self.split!r}: name one of them")
        options.TrainingConfig.check(self)


def parser() -> argparse.ArgumentParser:
    """The options of `lm-eval-tofu finetune`, to be a parser's parent."""
    return options.parser_of(
        FinetuneConfig,
        "lm-eval-tofu finetune (--model MODEL | --from-scratch NAME) --split SPLIT --output DIR [option ...]",
    )


def run(args: argparse.Namespace) -> None:
    """Run `lm-eval-tofu finetune`; see `finetune`."""
    finetune(options.from_arguments(FinetuneConfig, args))


def finetune(config: FinetuneConfig, callbacks: Sequence[Any] = ()) -> Path:
    """Fine-tune a model on TOFU, or resume where an earlier run with the same options was cut off.

    Args:
        config: What to do.
        callbacks: Further transformers `TrainerCallback` objects.

    Returns:
        The checkpoint's directory: safetensors weights, tokenizer with chat template, generation config, model card,
        and `training.json`, which records the options, the data's fingerprint and the libraries' versions.

    Raises:
        OptionError: An option cannot be used; before any model is loaded, except where only the weights can tell.
        DataError: The data cannot be read.
        PromptError: The tokenizer and the options give no prompt.
    """
    config.check()
    checkpoint.check_output(config.output, config.overwrite)
    source = tofu.resolve_source(config.tofu, config.revision)
    data = {split: tofu.fingerprint(source, split) for split in config.splits}
    rows = [row for split in config.splits for row in tofu.load(split, source)]
    if config.rows is not None:
        tofu.check_row_numbers("--rows", config.rows, config.split, len(rows))
        rows = [rows[number] for number in config.rows]
    if config.model is not None:
        check_model(config.model)

    # Imported only now: wrong options are answered at once.
    from transformers import set_seed

    from lm_eval_tofu.unlearn import training
    from lm_eval_tofu.unlearn.data import AnswerCollator, encode_rows
    from lm_eval_tofu.unlearn.run import Run, mean_answer_tokens
    from lm_eval_tofu.unlearn.supervised import AnswerTrainer

    tokenizer, context = _load_tokenizer(config, source)
    examples = encode_rows(tokenizer, rows, config.prompting, context)
    recorded = config.reproducibility_fields()
    arguments = training.training_arguments(config, checkpoint.partial_folder(config.output), len(examples))
    # The data's fingerprints stand for its source: the same content elsewhere may be resumed with.
    with checkpoint.begun(config.output, {**recorded, "tofu": data}, arguments) as resumed:
        set_seed(config.seed)
        model = _load_model(config, tokenizer)
        run = Run(
            config=config,
            arguments=arguments,
            tokenizer=tokenizer,
            use_cache=use_cache(model),
            before=checkpoint.parameter_digests(model),
            resumed=resumed,
        )
        with training.translated_refusals(config, ValueError, ImportError, RuntimeError, OSError):
            trainer = AnswerTrainer(
                model=model,
                args=arguments,
                data_collator=AnswerCollator(pad_token_id(tokenizer)),
                train_dataset=examples,
                callbacks=list(callbacks),
            )
        plan = training.memory_plan(model, arguments.per_device_train_batch_size * mean_answer_tokens(examples))
        run.announce(trainer, f"fine-tuning on {config.split}", len(examples), plan)
        losses = [entry["loss"] for entry in run.train(trainer)]
        run.finish(
            trainer,
            record={
                "method": "finetune",
                "options": recorded,
                "data": {"source": str(source), "fingerprints": data},
                "examples": len(examples),
                "losses": losses,
                "final_loss": losses[-1] if losses else None,
            },
            describe=lambda folder: _describe(folder, config, card.dataset(source)),
        )
        final = f"mean loss of the last epoch {losses[-1]:.4f} nats/token" if losses else "no loss was logged"
        log.info("checkpoint written to %s (%s)", config.output, final)
    return config.output


def _describe(folder: Path, config: FinetuneConfig, data: card.Dataset) -> None:
    start = "from scratch" if config.model is None else f"from `{Path(config.model).name}`"
    what = data.part(f"`{config.split}`")
    what = what if config.rows is None else f"{len(config.rows)} rows of {what}"
    card.write(
        folder,
        title=config.output.name,
        model=config.model,
        data=data,
        summary=f"{what} learned {start} by supervised fine-tuning.",
        settings={
            "split": config.split,
            **({} if config.rows is None else {"rows": len(config.rows)}),
            "epochs": config.epochs,
            "learning rate": config.learning_rate,
            "seed": config.seed,
        },
        tags=["finetuned"],
    )


def _load_tokenizer(config: FinetuneConfig, source: tofu.Source) -> tuple[Any, int | None]:
    """The tokenizer, and how many tokens the model can take (None: not stated)."""
    if config.from_scratch is None:
        return load_tokenizer(str(config.model), config.apply_chat_template)
    from lm_eval_tofu.unlearn import nano

    sizes = nano.preset(config.from_scratch)
    return nano.build_tokenizer(nano.corpus(source), sizes), sizes.context


def _load_model(config: FinetuneConfig, tokenizer: Any) -> Any:
    if config.from_scratch is None:
        return load_model(str(config.model), config.dtype)
    from lm_eval_tofu.unlearn import nano
    from lm_eval_tofu.unlearn.training import weight_dtype

    return nano.build_model(tokenizer, nano.preset(config.from_scratch), config.seed).to(weight_dtype(config.dtype))
