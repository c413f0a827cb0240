"""The options of `lm-eval-tofu audit`, its levels, and the models that it is given."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.reported import TASKS
from lm_eval_tofu.unlearn.options import DataOptions, PromptOptions, add_fields, json_object, option


class Level(NamedTuple):
    """What an audit of some depth consists of."""

    tasks: Sequence[str]  # of lm_eval, on every arm
    tools: Sequence[str]  # white-box audits


_QUICK = ("forget_quality", "model_utility", "answer_logprob", "novel_recall", "recognition")
LEVELS = {
    "quick": Level([f"tofu_{name}" for name in _QUICK], ()),
    "standard": Level(tuple(TASKS), ("memorization", "probe")),
    "full": Level(tuple(TASKS), ("memorization", "probe", "depth", "relearn")),
}
NEEDED = {"memorization": (), "probe": ("base", "retain"), "depth": ("full", "retain"), "relearn": ("retain",)}
"""The white-box audits, and the arms that each compares with."""
WITHOUT = {
    "retain": "forget quality, what is more than guessing in a leak, and PrivLeak",
    "full": "how far the answers' log-probability has moved, and which share of the model's utility is left",
}
"""What cannot be said without an arm."""


def _model_args(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        return json_object("--model-args", text)
    from lm_eval.utils import simple_parse_args_string

    return dict(simple_parse_args_string(text))


@dataclass(kw_only=True)
class AuditOptions(PromptOptions, DataOptions):
    """The options of `lm-eval-tofu audit`."""

    output: Path = field(metadata=option("directory of results, logs, commands and report", "-o", metavar="DIR"))
    level: str = field(
        default="standard",
        metadata=option(
            f"quick: {', '.join(_QUICK)}; standard: all tasks, memorization and probe; full: depth and relearn too"
        ),
    )
    forget_split: str = field(default="forget10", metadata=option(f"one of {', '.join(tofu.FORGET_SPLITS)}"))
    preset: str | None = field(
        default=None,
        metadata=option("a run config of lm-eval-tofu presets, for all arms (default: base, or cpu without a GPU)"),
    )
    backend: str | None = field(
        default=None, metadata=option("hf or vllm (default: the preset's; without one vllm where it is installed)")
    )
    model_args: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=option("further model arguments of the backend", metavar="K=V,...", parse=_model_args),
    )
    batch_size: str | None = field(
        default=None, metadata=option("as lm_eval's --batch_size (default: the preset's)", metavar="N")
    )
    device: str | None = field(default=None, metadata=option("cpu, cuda, ... (default: a GPU if there is one)"))
    metadata: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=option(
            "further options of the tasks, e.g. '{\"best_of_n\": 8}'",
            metavar="JSON",
            parse=partial(json_object, "--metadata"),
        ),
    )
    # None leaves it to each tokenizer; training, which the inherited field is for, has to be told yes or no.
    apply_chat_template: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata=option("render with the tokenizer's chat template (default: if it has one)", off="--no-chat-template"),
    )

    def check(self) -> None:
        """Check what can be checked without reading data or models.

        Raises:
            OptionError: A value cannot be used.
        """
        if self.level not in LEVELS:
            raise OptionError(f"--level {self.level!r} is unknown: use one of {', '.join(LEVELS)}")
        if self.output.exists() and not self.output.is_dir():
            raise OptionError(f"--output {self.output} is a file: name a directory")
        for name, own in (("forget_split", "--forget-split"), ("tofu", "--tofu"), ("tofu_revision", "--revision")):
            if name in self.metadata:
                raise OptionError(f"--metadata has {name}: give {own} instead, which holds for all steps")
        for name in ("retain_reference", "full_reference"):
            if name in self.metadata:
                raise OptionError(f"--metadata has {name}: name the arm instead, as {name.partition('_')[0]}=MODEL")
        Options.from_metadata(self.task_options)

    @property
    def task_options(self) -> dict[str, Any]:
        """The options of the tasks, without references."""
        given = {"tofu": self.tofu, "tofu_revision": self.revision, **self.metadata}
        return {
            "forget_split": self.forget_split,
            **{name: value for name, value in given.items() if value is not None},
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu audit`."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="ARM=MODEL",
        help="directory or hub name of each arm's model: retain, full, base, and any other name to audit, such as "
        "unlearned",
    )
    add_fields(parser, AuditOptions)


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """The models by their arms' names, the retain arm first, on which the others depend, then full and base.

    Raises:
        OptionError: An argument is not `arm=model`, or an arm or a model is given twice.
    """
    models: dict[str, str] = {}
    seen: dict[str, str] = {}
    for text in given:
        name, equals, model = text.partition("=")
        if not equals or not model or not re.fullmatch(r"\w[\w.-]*", name):
            raise OptionError(f"{text!r} is no arm: write ARM=MODEL, for example unlearned=models/npo")
        if name in models:
            raise OptionError(f"the arm {name} is given twice ({models[name]}, {model}): give each a name of its own")
        path = Path(os.path.expanduser(model))  # noqa: PTH111 - keeps a user that does not exist
        same = str(path.resolve()) if path.exists() else model
        if same in seen:
            raise OptionError(f"{seen[same]} and {name} are the same model ({model}): give each arm its own")
        models[name], seen[same] = model, name
    order = ("retain", "full", "base")
    return dict(sorted(models.items(), key=lambda arm: order.index(arm[0]) if arm[0] in order else len(order)))
