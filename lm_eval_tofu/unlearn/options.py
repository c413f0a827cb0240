"""The options that every way of training has, on the command line, in a YAML file and in Python.

A few have names of our own; all others of transformers' `TrainingArguments` go by their own names and reach it through
the field `training`.
"""

import argparse
import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError

DTYPES = ("auto", "float32", "mixed", "bfloat16")

OURS = {
    # a field of TrainingArguments: the option that says it
    "output_dir": "output",
    "num_train_epochs": "epochs",
    "learning_rate": "learning_rate",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "weight_decay": "weight_decay",
    "seed": "seed",
    "remove_unused_columns": None,
    "resume_from_checkpoint": None,
    "do_train": None,
}
"""Fields of `TrainingArguments` that are not passed on: ours say the same, or (None) they have no use here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """What every run is told. The command line's options have the same names.

    Attributes:
        output: Directory of the finished checkpoint.
        tofu: Data source, as `lm_eval_tofu.tofu.resolve_source`.
        revision: The data's revision on the hub.
        epochs: Passes over the rows.
        learning_rate: The peak, after warm-up and before linear decay to 0.
        batch_size: Rows on one device at a time.
        gradient_accumulation: Batches a step. Effective batch: batch size x accumulation x devices.
        weight_decay: AdamW's.
        warmup: Length of the linear warm-up, in epochs.
        seed: Of the initial weights (from scratch), the rows' order, their pairs and dropout.
        apply_chat_template: Off: `Question: {q}\\nAnswer: {a}`.
        system_prompt: The system turn; None leaves it to the template.
        template_args: Further variables for the chat template.
        dtype: `float32`; `mixed`: weights in float32, arithmetic in bfloat16; `bfloat16`: both, half the memory, but
            rounding swallows small updates; `auto`: `mixed` where the device has bfloat16, else `float32`.
        overwrite: Replace an existing output.
        training: Further fields of transformers' `TrainingArguments`, by their own names.
    """

    output: Path
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
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompting(self) -> Prompting:
        """How questions become prompts."""
        return Prompting(self.apply_chat_template, self.system_prompt, self.template_args)

    def determining(self) -> dict[str, Any]:
        """The options that determine the weights, by name, in the order of the fields."""
        return {name: value for name, value in asdict(self).items() if name not in ("output", "overwrite")}

    def check(self) -> None:
        """Check what can be checked without reading data or model.

        Raises:
            OptionError: A value cannot be used.
        """
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
        strategy = str(self.training.get("eval_strategy", "no"))
        if strategy not in ("no", "IntervalStrategy.NO"):
            raise OptionError(
                f"--eval_strategy {strategy} has no use here, where nothing is held out: run lm_eval on the checkpoint"
            )
        for name in self.training:
            if name in OURS:
                ours = OURS[name]
                advice = f"give {ours} instead" if ours else "it has no use here: leave it out"
                raise OptionError(f"training: {name} is not passed on: {advice}")


def add_shared_arguments(parser: argparse.ArgumentParser, default: TrainingConfig) -> None:
    """Declare the options of `TrainingConfig`, with the defaults of `default`."""
    parser.add_argument("--config", metavar="FILE", help="YAML file of options; those on the command line go first")
    add_option(parser, "--output", "--output-dir", required=True, type=Path, metavar="DIR", help="the checkpoint")
    parser.add_argument(
        "--tofu", help="data: mini, a directory, or a hub id (default: LM_EVAL_TOFU_DATA, else the hub)"
    )
    parser.add_argument("--revision", help="the data's revision on the hub")
    for flags, kind, what in (
        (("--epochs", "--num-train-epochs"), int, "passes over the rows"),
        (("--learning-rate", "--lr"), float, "peak learning rate"),
        (("--batch-size", "--per-device-train-batch-size"), int, "rows on one device at a time"),
        (("--gradient-accumulation", "--gradient-accumulation-steps"), int, "batches a step"),
        (("--weight-decay",), float, "AdamW's weight decay"),
        (("--warmup",), float, "linear warm-up, in epochs"),
        (("--seed",), int, "of initial weights, the rows' order and the adapters"),
        (("--dtype",), str, f"one of {', '.join(DTYPES)}; auto: mixed where the device has bfloat16, else float32"),
    ):
        value = getattr(default, flags[0].lstrip("-").replace("-", "_"))
        add_option(parser, *flags, type=kind, default=value, help=f"{what} (default: {value})")
    add_switch(parser, "--no-chat-template", "train on 'Question: ...\\nAnswer: ...' as plain text")
    add_option(parser, "--system-prompt", metavar="TEXT", help="content of the system turn")
    add_option(
        parser,
        "--template-args",
        metavar="JSON",
        help='variables for the chat template, e.g. \'{"date_string": "10 Apr 2025"}\'',
    )
    add_switch(parser, "--overwrite", "replace an existing output")


def add_option(parser: Any, *flags: str, **settings: Any) -> None:
    """Declare an option that can be written with dashes and, as in transformers' names, with underscores."""
    both = [written for flag in flags for written in (flag, "--" + flag[2:].replace("-", "_"))]
    parser.add_argument(*dict.fromkeys(both), **settings)


def add_switch(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    """Declare an option that is off unless named; a YAML file may also say `false`."""
    add_option(parser, flag, nargs="?", const=True, default=False, type=_truth, metavar="BOOL", help=what)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def add_training_arguments(parser: argparse.ArgumentParser, arguments_class: type) -> None:
    """Declare every field of a `TrainingArguments` class that is not one of `OURS`.

    Those that the user does not give are absent from the parsed namespace.

    Args:
        parser: Takes the options, in a group of their own.
        arguments_class: `TrainingArguments` or a dataclass derived from it.
    """
    from transformers import HfArgumentParser

    hints = get_type_hints(arguments_class)
    passed_on = [
        (
            each.name,
            hints[each.name],
            field(default=each.default, metadata=each.metadata)
            if each.default_factory is MISSING
            else field(default_factory=each.default_factory, metadata=each.metadata),
        )
        for each in fields(arguments_class)
        if each.init and each.name not in OURS
    ]
    theirs = HfArgumentParser(make_dataclass(arguments_class.__name__, passed_on, kw_only=True), add_help=False)
    theirs.set_defaults(**{name: argparse.SUPPRESS for name, *_ in passed_on})
    group = parser.add_argument_group(
        f"{arguments_class.__name__}", "further options of the trainer; the defaults named here are transformers' own"
    )
    # argparse's own way to merge parsers (`parents=`) works only where the parser is made.
    for action in theirs._actions:
        group._add_action(action)


def training_fields(args: argparse.Namespace, arguments_class: type, known: Sequence[str] = ()) -> dict[str, Any]:
    """What `add_training_arguments` parsed, without the fields in `known`."""
    names = [each.name for each in fields(arguments_class) if each.name not in known and each.name not in OURS]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def shared_values(args: argparse.Namespace, config_class: type) -> dict[str, Any]:
    """The fields of a `TrainingConfig` class that are options of the command line.

    Raises:
        OptionError: `--template-args` is not a JSON object.
    """
    values = {each.name: getattr(args, each.name) for each in fields(config_class) if hasattr(args, each.name)}
    values["apply_chat_template"] = not args.no_chat_template
    values["template_args"] = parse_template_args(args.template_args)
    return values


def with_config_file(arguments: Sequence[str]) -> list[str]:
    """Put the options of the YAML file that `--config` names before those of the command line, which so overrule it.

    Args:
        arguments: The subcommand's name and its options.

    Raises:
        OptionError: The file cannot be read, or is not a mapping of options to values.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    path = parser.parse_known_args(arguments[1:])[0].config
    if path is None:
        return list(arguments)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OptionError(f"--config {path} cannot be read ({' '.join(str(error).split())}): check the file") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise OptionError(f"--config {path} is not a mapping: write one 'option: value' a line")
    return [*arguments[:1], *as_arguments(content), *arguments[1:]]


def as_arguments(content: Mapping[str, Any]) -> Iterator[str]:
    """Options as a YAML file has them, as arguments of the command line; a value of None is left out."""
    for name, value in content.items():
        if value is None:
            continue
        yield f"--{name}"
        if isinstance(value, Mapping):
            yield json.dumps(value)
        elif isinstance(value, list | tuple):
            yield from map(str, value)
        else:
            yield str(value).lower() if isinstance(value, bool) else str(value)


class OptionParser(argparse.ArgumentParser):
    """A parser for options that do not come from the command line: what it refuses is an `OptionError`."""

    def __init__(self, where: str) -> None:
        """Name where the options come from, for messages; option names cannot be abbreviated there."""
        super().__init__(allow_abbrev=False, add_help=False)
        self._where = where

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process.

        Raises:
            OptionError: Always.
        """
        raise OptionError(f"{self._where}: {message}")

    def destination(self, name: str) -> str | None:
        """Where the value of an option goes, the same for all of its spellings; None for an unknown one."""
        action = self._option_string_actions.get(f"--{name}")
        return None if action is None else action.dest

    def check_known(self, names: Iterable[str], where: str) -> None:
        """Refuse names that are no options.

        Args:
            names: Without the dashes before them.
            where: What holds them, for messages.

        Raises:
            OptionError: It names the option, and the one that was probably meant.
        """
        known = {flag[2:] for flag in self._option_string_actions}
        for name in names:
            if name not in known:
                raise OptionError(f"{where}: {name} is no option{suggestion(name, known)}")


def parsed_training(where: str, given: Mapping[str, Any], arguments_class: type) -> dict[str, Any]:
    """Fields of a `TrainingArguments` class as its command line would read them: of the right types.

    Args:
        where: What holds them, for messages.
        given: By name. Those of `OURS` pass, to be refused by `TrainingConfig.check`.
        arguments_class: `TrainingArguments` or a class derived from it.

    Raises:
        OptionError: A name is no field (the message has the one that was probably meant), or a value has a wrong type.
    """
    parser = OptionParser(where)
    add_training_arguments(parser, arguments_class)
    theirs = {name: value for name, value in given.items() if name not in OURS}
    parser.check_known(theirs, where)
    args = parser.parse_args(list(as_arguments(theirs)))
    return {**training_fields(args, arguments_class), **{name: given[name] for name in given if name in OURS}}


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is most like it, or nothing that helps."""
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]}?" if close else ": check its name"


def parse_template_args(text: str | None) -> dict[str, Any]:
    """The value of `--template-args`.

    Raises:
        OptionError: It is not a JSON object.
    """
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
