"""Checks of what lm-eval is given that no model is needed for, and what the log says of it."""

import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import harness
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tofu import SOURCE_VARIABLE

log = logging.getLogger(__name__)
# lm_eval's command line shows INFO of its own loggers only.
run_log = logging.getLogger("lm_eval.lm_eval_tofu")

LONGEST_NAME = 255
"""Bytes of the longest name of a directory on the usual file systems (NAME_MAX)."""


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once in a process."""
    log.warning("%s", message)


def check_model(metadata: Mapping[str, Any]) -> None:
    """Refuse a model that lm-eval could not load or save the results of.

    Args:
        metadata: What lm-eval hands to the tasks: the model's arguments among others.

    Raises:
        OptionError: It is the folder of an adapter, or its path is too long.
    """
    pretrained = metadata.get("pretrained")
    if isinstance(pretrained, str):
        _check_not_an_adapter(pretrained, Path(pretrained, metadata.get("subfolder") or ""))
    # A loaded model can be an argument too: its whole description would be the name.
    names = {key: value for key, value in metadata.items() if isinstance(value, str | os.PathLike)}
    _check_length(str(pretrained or metadata.get("model")), "--model_args", harness.results_folder(names))


def _check_not_an_adapter(pretrained: str, folder: Path) -> None:
    """Backends refuse the folder of an adapter with a message about a missing config.json."""
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = "BASE"
    raise OptionError(
        f"pretrained={pretrained} in --model_args holds an adapter and no model: pass "
        f"pretrained={base},peft={pretrained} (vllm: pretrained={base},lora_local_path={pretrained})"
    )


def check_results_name(option: str, name: str) -> None:
    """Make sure that lm-eval can name the results' directory, which it names after the whole path of the model.

    It logs the failure in one line and ends with exit status 0, after all of the evaluation.

    Args:
        option: The option that the path comes from, for the message.
        name: Path or hub id of the model.

    Raises:
        OptionError: The name would be longer than a directory's may be.
    """
    _check_length(name, option, harness.results_folder(name))


def _check_length(model: str, option: str, folder: str | None) -> None:
    length = len(os.fsencode(folder or ""))
    if length > LONGEST_NAME:
        raise OptionError(
            f"{option}: the model {model[:40]}...{model[-40:]} makes a name of {length} bytes: lm_eval names the "
            f"directory of a model's results after its path, names may have {LONGEST_NAME} bytes, and nothing would be "
            "saved: use a shorter, relative path, or a symbolic link (ln -s)"
        )


def check_scoring(task: str, model: Any, sends_messages: bool) -> None:
    """Refuse servers that give no score of an answer, or split text themselves and may score other tokens.

    Raises:
        OptionError: The model is behind one.
    """
    if sends_messages:
        raise OptionError(
            f"{task} scores answers, and a backend of chat completions gives no log-likelihoods: leave it out of "
            "--tasks, or use hf, vllm or local-completions"
        )
    if isinstance(model, harness.TemplateAPI) and not model.tokenized_requests and model.tokenizer_backend is not None:
        raise OptionError(
            f"tokenized_requests=False in --model_args does not fit {task}: the server would split the text itself, so "
            "which of its tokens are the answer's is not known; leave it out"
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
