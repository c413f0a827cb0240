"""Loads the model to train and its tokenizer, and checks names and directories before."""

import os
from pathlib import Path
from typing import Any

from lm_eval_tofu.errors import OptionError, PromptError


def check_model(model: str, option: str = "--model") -> None:
    """Make sure that a model's directory exists, or that its hub name can be looked up, without loading anything.

    Args:
        model: Directory or hub name.
        option: The option that named it, for messages.

    Raises:
        OptionError: It is no directory and cannot be on the hub, or only there while the hub is out of reach.
    """
    folder = Path(os.path.expanduser(model))  # noqa: PTH111 - keeps a user that does not exist
    if folder.is_dir():
        check_folder(folder, f"{option} {model}")
        return
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or folder.exists():
        raise OptionError(f"{option} {model} is no directory: name a model's directory or its name on the hub")

    from huggingface_hub import constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(model, "config.json"), str):
        raise OptionError(
            f"{option} {model} is no directory, and not in the hub's cache while HF_HUB_OFFLINE is set: "
            "name a local directory, or unset it"
        )


def check_folder(folder: Path, named: str) -> None:
    """Make sure that a directory holds a whole model.

    Args:
        folder: The directory.
        named: How messages call it: the option and its value.
    """
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise OptionError(
            f"{named} holds LoRA adapters and no model: merge them into their base with peft's merge_and_unload, save "
            "the result with its tokenizer, and name that"
        )
    raise OptionError(f"{named} has no config.json: name the directory that save_pretrained wrote")


def load_tokenizer(model: str, apply_chat_template: bool, option: str = "--model") -> tuple[Any, int | None]:
    """The tokenizer, and how many tokens the model can take (None: not stated).

    Args:
        model: Directory or hub name.
        apply_chat_template: Whether it must have a chat template.
        option: The option that named the model, for messages.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoTokenizer

    from lm_eval_tofu.unlearn.training import first_line

    try:
        tokenizer, config = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise OptionError(f"{option} {model} cannot be read ({first_line(error)}): check the name") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise OptionError(
            f"{option} {model} is of the architecture {config.model_type}, for which transformers has no causal "
            "language model: name a text-only one, whose class ends in ForCausalLM"
        )
    if apply_chat_template and not tokenizer.chat_template:
        raise PromptError(
            f"{option} {model}: its tokenizer has no chat template: give --no-chat-template to train on plain "
            "text, or save a template with the tokenizer"
        )
    return tokenizer, getattr(config.get_text_config(), "max_position_embeddings", None)


def load_model(model: str, dtype: str) -> Any:
    """The model, with weights of the type that `--dtype` asks for; see `load_causal`."""
    from lm_eval_tofu.unlearn.training import weight_dtype

    return load_causal(model, weight_dtype(dtype), f"--model {model}")


def load_causal(model: str | Path, dtype: Any, named: str) -> Any:
    """A causal language model.

    Args:
        model: Directory or hub name.
        dtype: Of its weights, as torch has it.
        named: The option that named the model, and its value, for messages.

    Raises:
        OptionError: Its files are missing, damaged, or of no causal language model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from lm_eval_tofu.unlearn.training import first_line

    try:
        return AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    # torch raises RuntimeError for tensors of other shapes than the configuration's.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise OptionError(f"{named} cannot be loaded ({first_line(error)}): check its files") from error


def use_cache(model: Any) -> bool | None:
    """The key-value cache's switch in a model's configuration; None where it has none, as with a vision part."""
    return getattr(model.config, "use_cache", None)


def restore_use_cache(model: Any, value: bool | None) -> None:
    """Undo the trainer's change of that switch, which would be written into the checkpoint.

    Args:
        model: After training.
        value: Of `use_cache` before training.
    """
    if value is not None:
        model.config.use_cache = value
    elif hasattr(model.config, "use_cache"):
        del model.config.use_cache


def pad_token_id(tokenizer: Any) -> int:
    """What fills a batch; any token will do, see `lm_eval_tofu.unlearn.data.AnswerCollator`."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
