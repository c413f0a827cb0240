"""Options as dataclass fields: the command line, the YAML file and the record of a run are made from them.

A few have names of our own; all others of transformers' `TrainingArguments` go by their own names and reach it through
the field `training`.
"""

import argparse
import difflib
import json
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError

DTYPES = ("auto", "float32", "mixed", "bfloat16")

_WITHOUT_USE = ("remove_unused_columns", "resume_from_checkpoint", "do_train")
"""Fields of `TrainingArguments` that have no use here."""

Config = TypeVar("Config", bound="TrainingConfig")


def option(
    help: str,
    *aliases: str,
    metavar: str | None = None,
    off: str | None = None,
    parse: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """Metadata of a dataclass field that is an option too; without a default it is required.

    A field that is a tuple takes its values joined by commas.

    Args:
        help: Text for `--help`; the default is added.
        *aliases: Further names, such as `--lr`.
        metavar: As in `argparse`.
        off: Of a boolean: the name that switches it off, in place of `--no-NAME`.
        parse: Makes the value of the text that the command line has, and raises `OptionError`.
    """
    return {"help": help, "aliases": aliases, "metavar": metavar, "off": off, "parse": parse}


def json_object(name: str, text: str) -> dict[str, Any]:
    """The value of an option that takes a JSON object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise OptionError(f"{name} {text!r} is not JSON ({error}): give an object, such as '{{}}'") from error
    if not isinstance(value, dict):
        raise OptionError(f'{name} {text!r} is not an object: give for example \'{{"date_string": "10 Apr 2025"}}\'')
    return value


@dataclass(kw_only=True)
class DataOptions:
    """Where the data come from; see `lm_eval_tofu.tofu.resolve_source`."""

    tofu: str | None = field(
        default=None, metadata=option("data: mini, a directory, or a hub id (default: LM_EVAL_TOFU_DATA, else the hub)")
    )
    revision: str | None = field(default=None, metadata=option("the data's revision on the hub"))


@dataclass(kw_only=True)
class PromptOptions:
    """How questions become prompts; see `lm_eval_tofu.chat.Prompting`."""

    apply_chat_template: bool = field(
        default=True,
        metadata=option(
            "render with the tokenizer's chat template; off: 'Question: ...\\nAnswer: ...' as plain text",
            off="--no-chat-template",
        ),
    )
    system_prompt: str | None = field(
        default=None, metadata=option("content of the system turn (default: the template's)", metavar="TEXT")
    )
    template_args: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=option(
            'variables for the chat template, e.g. \'{"date_string": "10 Apr 2025"}\'',
            metavar="JSON",
            parse=partial(json_object, "--template-args"),
        ),
    )

    @property
    def prompting(self) -> Prompting:
        """The same as `Prompting`."""
        return Prompting(self.apply_chat_template, self.system_prompt, self.template_args)


@dataclass(kw_only=True)
class TrainingConfig(PromptOptions, DataOptions):
    """The options of every training.

    Attributes:
        training: Further fields of transformers' `TrainingArguments`, by their own names.
    """

    output: Path = field(metadata=option("directory of the finished checkpoint", "--output-dir", metavar="DIR"))
    epochs: int = field(default=5, metadata=option("passes over the rows", "--num-train-epochs"))
    learning_rate: float = field(
        default=1e-5, metadata=option("peak, after the warm-up and before linear decay to 0", "--lr")
    )
    batch_size: int = field(default=8, metadata=option("rows on one device at a time", "--per-device-train-batch-size"))
    gradient_accumulation: int = field(default=4, metadata=option("batches per step", "--gradient-accumulation-steps"))
    weight_decay: float = field(default=0.01, metadata=option("AdamW's weight decay"))
    warmup: float = field(default=1.0, metadata=option("length of the linear warm-up, in epochs"))
    seed: int = field(
        default=0, metadata=option("of initial weights, the rows' order, their pairs, dropout and adapters")
    )
    dtype: str = field(
        default="auto",
        metadata=option(
            f"one of {', '.join(DTYPES)}. mixed: weights in float32, arithmetic in bfloat16; bfloat16: both, half the "
            "memory, but rounding loses small updates; auto: mixed where the device has bfloat16, else float32"
        ),
    )
    overwrite: bool = field(default=False, metadata=option("replace an existing output"))
    training: Mapping[str, Any] = field(default_factory=dict)

    def reproducibility_fields(self) -> dict[str, Any]:
        """The options that determine the weights, by name."""
        return {name: value for name, value in asdict(self).items() if name not in ("output", "overwrite")}

    def check(self) -> None:
        """Check what can be checked without reading data or model."""
        for name in ("epochs", "batch_size", "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise OptionError(f"{flag(name)} {getattr(self, name)} is less than 1: give 1 or more")
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
        ours = spellings(type(self))
        for name in self.training:
            if name in ours or name in _WITHOUT_USE:
                advice = f"give {ours[name]} instead" if name in ours else "it has no use here: leave it out"
                raise OptionError(f"training: {name} is not passed on: {advice}")


# From the fields to the command line.


def flag(name: str) -> str:
    """The command line's name of a field."""
    return f"--{name.replace('_', '-')}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is most like it, or nothing that helps."""
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]}?" if close else ": check its name"


class OptionParser(argparse.ArgumentParser):
    """A parser whose errors are an `OptionError`, for options that do not come from the command line."""

    def __init__(self, where: str, parents: Sequence[argparse.ArgumentParser]) -> None:
        """Name where the options come from, for messages; option names cannot be abbreviated there."""
        super().__init__(allow_abbrev=False, add_help=False, parents=parents)
        self._where = where

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        raise OptionError(f"{self._where}: {message}")


def add_option(parser: Any, *flags: str, **settings: Any) -> None:
    """Declare an option that can be written with dashes and, as in transformers' names, with underscores."""
    parser.add_argument(*_both(flags), **settings)


def add_switch(parser: Any, name: str, what: str, *, off: bool = False, **settings: Any) -> None:
    """Declare a boolean option that takes `true`, `false` or nothing; `off`: that stores the opposite."""
    given = {"nargs": "?", "const": not off, "default": off, "type": _false if off else _true, "metavar": "BOOL"}
    add_option(parser, name, **{**given, "help": what, **settings})


def _both(flags: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(written for each in flags for written in (each, each[:2] + each[2:].replace("-", "_"))))


def _true(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _false(text: str) -> bool:
    return not _true(text)


def _options(config_class: type) -> Iterator[tuple[Field[Any], Mapping[str, Any]]]:
    """The fields made by `option`, and their metadata; a class that changes a default alone inherits it."""
    bases = [base for base in config_class.__mro__ if is_dataclass(base)]
    for each in fields(config_class):
        stated = (other.metadata for base in bases for other in fields(base) if other.name == each.name)
        metadata = next(filter(None, stated), None)
        if metadata:
            yield each, metadata


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _off(each: Field[Any], metadata: Mapping[str, Any]) -> str:
    return metadata.get("off") or f"--no-{each.name.replace('_', '-')}"


def spellings(config_class: type) -> dict[str, str]:
    """The options of a dataclass in all their spellings, without the dashes before them, and the field of each."""
    described = {each.name: metadata for each, metadata in _options(config_class)}
    found: dict[str, str] = {}
    for each in fields(config_class):
        if each.name != "training":
            # Fields of transformers' classes have no aliases, some not even a help text.
            metadata = described.get(each.name, {})
            names = [flag(each.name), *metadata.get("aliases", ())]
            names += [_off(each, metadata)] if metadata.get("off") or each.default is True else []
            found |= {written[2:]: each.name for written in _both(names)}
    return found


def check_known(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse names that are no options."""
    for name in names:
        if name not in known:
            raise OptionError(f"{where}: {name} is no option{suggestion(name, known)}")


def add_fields(parser: argparse.ArgumentParser, config_class: type) -> None:
    """Declare the options of a dataclass. Those that the user does not give are None in the parsed namespace."""
    hints = get_type_hints(config_class)
    for each, metadata in sorted(_options(config_class), key=lambda found: not _is_required(found[0])):
        required = _is_required(each)
        shown = required or each.default is None or each.default_factory is not MISSING or each.default is False
        default = ",".join(map(str, each.default)) if isinstance(each.default, tuple) else each.default
        text = metadata["help"] if shown else f"{metadata['help']} (default: {default})"
        settings: dict[str, Any] = {"dest": each.name, "default": None}
        kind = _without_none(hints[each.name])
        if kind is bool:
            add_switch(parser, flag(each.name), text, **settings)
            if metadata["off"] or each.default is True:
                add_switch(parser, _off(each, metadata), f"the opposite of {flag(each.name)}", off=True, **settings)
        else:
            settings |= {"required": required, "metavar": metadata["metavar"], "help": text}
            # What needs more than a type is parsed after argparse, which would hide the error's message.
            kind = kind if kind in (int, float, Path) else str
            add_option(parser, flag(each.name), *metadata["aliases"], type=kind, **settings)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [each for each in get_args(hint) if each is not type(None)]
        return rest[0] if len(rest) == 1 else str
    return hint


def values_of(args: argparse.Namespace, config_class: type) -> dict[str, Any]:
    """What was given of the options that `add_fields` declared, by field."""
    given, hints = {}, get_type_hints(config_class)
    for each, metadata in _options(config_class):
        value, kind = getattr(args, each.name), _without_none(hints[each.name])
        if value is not None and metadata["parse"] is not None:
            value = metadata["parse"](value)
        elif value is not None and get_origin(kind) is tuple:
            value = _list(flag(each.name), get_args(kind)[0], value)
        if value is not None:
            given[each.name] = value
    return given


def _list(name: str, kind: type, text: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part.strip()) for part in text.split(","))
    except ValueError as error:
        what, example = ("whole numbers", "2,5") if kind is int else ("numbers", "1e-5,5e-5")
        raise OptionError(f"{name} {text!r} is no list of {what}: give for example {example}") from error


# Whole configurations.


def _trainer_parser() -> argparse.ArgumentParser:
    """transformers' own parser of `TrainingArguments`; what the user does not give is None."""
    from transformers import HfArgumentParser, TrainingArguments

    title = "further options of transformers' TrainingArguments, with its defaults"
    grouped = type("TrainingArguments", (TrainingArguments,), {"_argument_group_name": title})
    parser: argparse.ArgumentParser = HfArgumentParser(grouped, add_help=False)
    parser.set_defaults(**dict.fromkeys(each.name for each in fields(TrainingArguments)))
    return parser


def _trainer_values(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of the trainer's options."""
    from transformers import TrainingArguments

    values = {each.name: getattr(args, each.name) for each in fields(TrainingArguments) if each.name in args}
    return {name: value for name, value in values.items() if value is not None}


def parsed_training(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `TrainingArguments` as its command line would read them: of the right types.

    Args:
        where: What holds them, for messages.
        given: By name.
    """
    from transformers import TrainingArguments

    check_known(given, [each.name for each in fields(TrainingArguments)], where)
    return _trainer_values(OptionParser(where, [_trainer_parser()]).parse_args(list(as_arguments(given))))


def parser_of(config_class: type, usage: str | None = None) -> argparse.ArgumentParser:
    """A parser of a training's options, to be a parent of others; `from_arguments` reads what it has parsed."""
    # Ours replace those of the trainer that have the same names.
    parser = argparse.ArgumentParser(
        add_help=False, usage=usage, parents=[_trainer_parser()], conflict_handler="resolve"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of options; those on the command line go first")
    add_fields(parser, config_class)
    return parser


def from_arguments(config_class: type[Config], args: argparse.Namespace) -> Config:
    """The configuration that a parser with the parent `parser_of` has parsed."""
    ours = values_of(args, config_class)
    training = {name: value for name, value in _trainer_values(args).items() if name not in ours}
    return config_class(**ours, training=training)


def from_mapping(config_class: type[Config], given: Mapping[str, Any], where: str) -> Config:
    """The configuration that options by name make, as a YAML file has them.

    Args:
        config_class: What to make.
        given: By name, in any of its spellings; None is passed over.
        where: What holds them, for messages.
    """
    parser = OptionParser(where, [parser_of(config_class)])
    return from_arguments(config_class, parser.parse_args(list(as_arguments(given))))


def with_config_file(arguments: Sequence[str]) -> list[str]:
    """Put the options of the YAML file that `--config` names before those of the command line, which so overrule it.

    Args:
        arguments: The subcommand's name and its options.
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
