"""Checks of what lm-eval is given that no model is needed for, and what the log says of it."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lm_eval.loggers.evaluation_tracker import GeneralConfigTracker
from lm_eval.utils import sanitize_model_name

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tofu import SOURCE_VARIABLE

# lm_eval's command line shows INFO of its own loggers only.
run_log = logging.getLogger("lm_eval.lm_eval_tofu")

LONGEST_NAME = 255
"""Bytes of the longest name of a directory on the usual file systems (NAME_MAX)."""


def check_model_name(metadata: Mapping[str, Any]) -> None:
    """Make sure that lm-eval can save the results of the model that its arguments name; see `check_results_name`.

    Args:
        metadata: What lm-eval hands to the tasks: the model's arguments among others.

    Raises:
        OptionError: It cannot.
    """
    # A loaded model can be an argument too: its whole description would be the name.
    names = {key: value for key, value in metadata.items() if isinstance(value, str | os.PathLike)}
    name = GeneralConfigTracker._get_model_name(names)
    if name is not None:
        check_results_name("--model_args", name)


def check_results_name(option: str, name: str) -> None:
    """Make sure that lm-eval can name the results' directory, which it names after the whole path of the model.

    It logs the failure in one line and ends with exit status 0, after all of the evaluation.

    Args:
        option: The option that the path comes from, for the message.
        name: Path or hub id of the model.

    Raises:
        OptionError: The name would be longer than a directory's may be.
    """
    length = len(os.fsencode(sanitize_model_name(name)))
    if length > LONGEST_NAME:
        raise OptionError(
            f"{option}: the model {name[:40]}...{name[-40:]} makes a name of {length} bytes: lm_eval names the "
            f"directory of a model's results after its path, names may have {LONGEST_NAME} bytes, and nothing would be "
            "saved: use a shorter, relative path, or a symbolic link (ln -s)"
        )


def check_server_arguments(task: str, metadata: Mapping[str, Any], sends_messages: bool) -> None:
    """Refuse template arguments for a model behind an API: lm-eval's API backends accept and ignore them.

    Args:
        task: Name of the task.
        metadata: What lm-eval hands to the tasks.
        sends_messages: Whether the server renders the turns; otherwise lm-eval does, from the tokenizer.

    Raises:
        OptionError: They are given; the message says where to set them instead.
    """
    given = [name for name in ("chat_template_args", "enable_thinking") if metadata.get(name) is not None]
    if not given:
        return
    if sends_messages:
        where = (
            "set them where the server is started (vllm serve: --default-chat-template-kwargs; llama-server: "
            "--chat-template-kwargs)"
        )
    else:
        where = (
            "write them into the chat template instead, for example {%- set enable_thinking = false %} as its first "
            "line in a copy of the tokenizer, and name that copy by tokenizer="
        )
    raise OptionError(
        f"{task}: {' and '.join(given)} have no effect with this backend, which drops them: leave them out of "
        f"--model_args and --metadata, and {where}"
    )


def log_options(task: str, options: Options, metadata: Mapping[str, Any]) -> None:
    """Say which data a task is about to use, and which options are not the defaults.

    lm_eval's --metadata replaces a config file's metadata as a whole: options of the file may have been lost.
    """
    origin = "" if options.tofu else f" ({SOURCE_VARIABLE})" if os.environ.get(SOURCE_VARIABLE) else " (default)"
    split = "" if metadata.get("forget_split") is not None else " (default)"
    default, named = Options(), ("tofu", "tofu_revision", "forget_split")
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in named}
    others = [f"{name}={_shown(value)}" for name, value in values.items() if value != getattr(default, name)]
    run_log.info(
        "%s: TOFU source %s%s, split %s%s, %s",
        task,
        options.source,
        origin,
        options.forget_split,
        split,
        ", ".join(others) or "no other option",
    )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
