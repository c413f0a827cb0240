"""Supervised fine-tuning on TOFU: how the base, full and retain arms are made."""

import argparse
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_tofu import tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError, PromptError
from lm_eval_tofu.unlearn import checkpoint

log = logging.getLogger(__name__)

SPLITS = tuple(config for config in tofu.CONFIGS if not config.endswith("_perturbed"))
"""The configurations that can be trained on; the others ask the same questions with wrong answers beside the right."""

FROM_SCRATCH = ("nano",)
DTYPES = ("auto", "float32", "mixed", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Everything that a run of `finetune` is told. The command line's options have the same names.

    Attributes:
        output: Directory of the finished checkpoint.
        split: A configuration of TOFU, or several joined by `+`.
        model: Directory or hub name of the model to start from; exactly one of this and `from_scratch` is given.
        from_scratch: `nano`: a new, small model with a tokenizer of its own.
        tofu: Data source, as `lm_eval_tofu.tofu.resolve_source`.
        revision: The data's revision on the hub.
        epochs: Passes over the rows.
        learning_rate: The peak, after warm-up and before linear decay to 0.
        batch_size: Rows on one device at a time.
        gradient_accumulation: Batches a step. Effective batch: batch size x accumulation x devices.
        weight_decay: AdamW's.
        warmup: Length of the linear warm-up, in epochs.
        seed: Of the initial weights (from scratch), the rows' order and dropout.
        apply_chat_template: Off: `Question: {q}\\nAnswer: {a}`.
        system_prompt: The system turn; None leaves it to the template.
        template_args: Further variables for the chat template.
        dtype: `float32`; `mixed`: weights in float32, arithmetic in bfloat16; `bfloat16`: both, half the memory, but
            rounding swallows small updates; `auto`: `mixed` where the device has bfloat16, else `float32`.
        overwrite: Replace an existing output.
    """

    output: Path
    split: str
    model: str | None = None
    from_scratch: str | None = None
    tofu: str | None = None
    revision: str | None = None
    epochs: int = 5
    learning_rate: float = 1e-5
    batch_size: int = 8
    gradient_accumulation: int = 4
    weight_decay: float = 0.01
    warmup: float = 1.0
    seed: int = 0
    apply_chat_template: bool = True
    system_prompt: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    overwrite: bool = False

    @property
    def prompting(self) -> Prompting:
        """How questions become prompts."""
        return Prompting(self.apply_chat_template, self.system_prompt, self.template_args)

    @property
    def splits(self) -> list[str]:
        """The configurations to train on, in the order given."""
        return self.split.split("+")

    def check(self) -> None:
        """Check what can be checked without reading data or model.

        Raises:
            OptionError: A value cannot be used.
        """
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
        for option, number in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--gradient-accumulation", self.gradient_accumulation),
        ):
            if number < 1:
                raise OptionError(f"{option} {number} is less than 1: give 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise OptionError(f"--learning-rate {self.learning_rate} is not above 0: give for example 1e-5")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise OptionError(f"--weight-decay {self.weight_decay} is below 0: give 0 or more, for example 0.01")
        if not 0 <= self.warmup <= self.epochs:
            raise OptionError(f"--warmup {self.warmup} is not between 0 and --epochs {self.epochs}: it counts epochs")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"--seed {self.seed} is not in [0, 2**32): give for example 0")
        if self.dtype not in DTYPES:
            raise OptionError(f"--dtype {self.dtype!r} is unknown: use one of {', '.join(DTYPES)}")
        if not self.apply_chat_template and self.template_args:
            raise OptionError(
                f"--template-args {dict(self.template_args)} has no use with --no-chat-template: leave one of them out"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu finetune`."""
    default = FinetuneConfig(output=Path(), split="")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--model", metavar="M", help="directory or hub name of the model to start from")
    start.add_argument("--from-scratch", metavar="NAME", help="train a new model: nano")
    parser.add_argument("--split", required=True, help=f"{', '.join(SPLITS)}, or several joined by '+'")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the checkpoint will stand")
    parser.add_argument(
        "--tofu", help="data: mini, a directory, or a hub id (default: LM_EVAL_TOFU_DATA, else the hub)"
    )
    parser.add_argument("--revision", help="the data's revision on the hub")
    for option, kind, what in (
        ("epochs", int, "passes over the rows"),
        ("learning_rate", float, "peak learning rate"),
        ("batch_size", int, "rows on one device at a time"),
        ("gradient_accumulation", int, "batches a step"),
        ("weight_decay", float, "AdamW's weight decay"),
        ("warmup", float, "linear warm-up, in epochs"),
        ("seed", int, "of initial weights and the rows' order"),
        ("dtype", str, f"one of {', '.join(DTYPES)}; auto: mixed where the device has bfloat16, else float32"),
    ):
        flag = f"--{option.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=getattr(default, option), help=f"{what} (default: %(default)s)")
    parser.add_argument(
        "--no-chat-template", action="store_true", help="train on 'Question: ...\\nAnswer: ...' as plain text"
    )
    parser.add_argument("--system-prompt", metavar="TEXT", help="content of the system turn")
    parser.add_argument(
        "--template-args",
        metavar="JSON",
        help='variables for the chat template, e.g. \'{"date_string": "10 Apr 2025"}\'',
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def run(args: argparse.Namespace) -> int:
    """Run `lm-eval-tofu finetune`.

    Returns:
        0, the process's exit status.

    Raises:
        TofuError: As `finetune`.
    """
    values = {name: getattr(args, name) for name in FinetuneConfig.__dataclass_fields__ if hasattr(args, name)}
    values["apply_chat_template"] = not args.no_chat_template
    values["template_args"] = _parse_template_args(args.template_args)
    finetune(FinetuneConfig(**values))
    return 0


def finetune(config: FinetuneConfig, callbacks: Sequence[Any] = ()) -> Path:
    """Fine-tune a model on TOFU, or resume where an earlier run with the same options was cut off.

    Args:
        config: What to do.
        callbacks: Further transformers `TrainerCallback` objects.

    Returns:
        The checkpoint's directory: safetensors weights, tokenizer with chat template, generation config, and
        `training.json`, which records the options, the data's fingerprint and the libraries' versions.

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
    if config.model is not None:
        check_model(config.model)

    # Imported only now: wrong options are answered at once, and `--help` does not load torch.
    from transformers import ProgressCallback, Trainer, set_seed

    from lm_eval_tofu.unlearn.data import AnswerCollator, encode_rows
    from lm_eval_tofu.unlearn.training import QuietProgress, effective_batch, steps_per_epoch, training_arguments

    tokenizer, max_length = _load_tokenizer(config, source)
    examples = encode_rows(tokenizer, rows, config.prompting, max_length)
    options = _options(config)
    arguments = training_arguments(config, checkpoint.partial_folder(config.output), len(examples))
    with arguments.main_process_first(desc="partial folder"):
        # The data's fingerprints stand for its source: the same content elsewhere may be resumed with.
        resumed = checkpoint.begin(config.output, {**options, "tofu": data})

    set_seed(config.seed)
    model = _load_model(config, tokenizer)
    before = checkpoint.parameter_digests(model)
    use_cache = model.config.use_cache
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=AnswerCollator(_pad_token_id(tokenizer)),
        train_dataset=examples,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(QuietProgress())
    batch = effective_batch(arguments)
    steps = config.epochs * steps_per_epoch(arguments, len(examples))
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info(
        "fine-tuning on %s: %d examples, effective batch %d, %d steps, %d trainable parameters%s",
        *(config.split, len(examples), batch, steps, trainable),
        f", resumed from {resumed.name}" if resumed else "",
    )
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in losses):
        checkpoint.discard(config.output)
        raise OptionError(
            f"--learning-rate {config.learning_rate}: the loss was not finite in epoch "
            f"{1 + [math.isfinite(loss) for loss in losses].index(False)}, so nothing is written: lower it"
        )

    def save(folder: Path) -> None:
        # The trainer switches the key-value cache off in the model's own configuration.
        model.config.use_cache = use_cache
        trainer.save_model(str(folder))
        # The trainer writes its own settings, which name folders of this machine; ours are in training.json.
        (folder / "training_args.bin").unlink(missing_ok=True)
        if trainer.is_world_process_zero():
            tokenizer.save_pretrained(folder)

    checkpoint.finish(
        config.output,
        save=save,
        before=before,
        main_process=trainer.is_world_process_zero(),
        wait=trainer.accelerator.wait_for_everyone,
        record={
            "method": "finetune",
            "options": options,
            "apply_chat_template": config.apply_chat_template,
            "system_prompt": config.system_prompt,
            "template_args": dict(config.template_args),
            "data": {"source": str(source), "fingerprints": data},
            "examples": len(examples),
            "effective_batch": batch,
            "steps": trainer.state.global_step,
            "losses": losses,
            "final_loss": losses[-1],
            "trainable_parameters": trainable,
            "device": arguments.device.type,
            "weight_dtype": str(model.dtype).removeprefix("torch."),
            "weights_before": checkpoint.fingerprint(before),
        },
    )
    log.info("%s stands: mean loss of the last epoch %.4f nats/token", config.output, losses[-1])
    return config.output


def check_model(model: str) -> None:
    """Make sure that a model's directory exists, or that its hub name can be looked up, without loading anything.

    Raises:
        OptionError: It is no directory and cannot be on the hub, or only there while the hub is out of reach.
    """
    folder = Path(os.path.expanduser(model))  # noqa: PTH111 - keeps a user that does not exist
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise OptionError(f"--model {model} has no config.json: name the directory that save_pretrained wrote")
        return
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or folder.exists():
        raise OptionError(f"--model {model} is no directory: name a model's directory or its name on the hub")

    from huggingface_hub import constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(model, "config.json"), str):
        raise OptionError(
            f"--model {model} is no directory, and not in the hub's cache while HF_HUB_OFFLINE is set: "
            "name a local directory, or unset it"
        )


def _options(config: FinetuneConfig) -> dict[str, Any]:
    """The options that determine the weights, in the order of `FinetuneConfig`."""
    return {name: value for name, value in asdict(config).items() if name not in ("output", "overwrite")}


def _pad_token_id(tokenizer: Any) -> int:
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _load_tokenizer(config: FinetuneConfig, source: tofu.Source) -> tuple[Any, int | None]:
    """The tokenizer, and how many tokens the model can take (None: it does not say)."""
    if config.model is None:
        from lm_eval_tofu.unlearn import nano

        sizes = nano.preset()
        return nano.build_tokenizer(nano.corpus(source), sizes), sizes.context

    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        context = getattr(AutoConfig.from_pretrained(config.model), "max_position_embeddings", None)
    except (OSError, ValueError) as error:
        raise OptionError(f"--model {config.model} cannot be read ({_first_line(error)}): check the name") from error
    if config.apply_chat_template and not tokenizer.chat_template:
        raise PromptError(
            f"--model {config.model}: its tokenizer has no chat template: give --no-chat-template to train on plain "
            "text, or save a template with the tokenizer"
        )
    return tokenizer, context


def _load_model(config: FinetuneConfig, tokenizer: Any) -> Any:
    from lm_eval_tofu.unlearn.training import weight_dtype

    dtype = weight_dtype(config.dtype)
    if config.model is None:
        from lm_eval_tofu.unlearn import nano

        return nano.build_model(tokenizer, nano.preset(), config.seed).to(dtype)

    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise OptionError(f"--model {config.model} cannot be loaded ({_first_line(error)}): check its files") from error


def _parse_template_args(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise OptionError(f"--template-args {text!r} is not JSON ({error}): give an object, such as '{{}}'") from error
    if not isinstance(value, dict):
        raise OptionError(
            f'--template-args {text!r} is not an object: give for example \'{{"date_string": "10 Apr 2025"}}\''
        )
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
