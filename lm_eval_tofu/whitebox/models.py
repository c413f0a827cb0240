"""Finds the models of a white-box audit, checks that they can be compared, and loads them without gradients."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import chat
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.evaluation import check_device
from lm_eval_tofu.unlearn.checkpoint import fingerprint, saved_digests
from lm_eval_tofu.unlearn.models import check_folder, check_model, load_tokenizer

DTYPES = ("auto", "float32", "bfloat16", "float16")


class Model(NamedTuple):
    """A model that is not loaded yet.

    Attributes:
        option: The option that named it, for messages.
        name: Directory or hub name.
        folder: Directory of its files.
        tokenizer: Its transformers tokenizer.
        layers: Number of transformer layers.
        context: Longest sequence in tokens; None: its configuration does not state it.
        weights: Fingerprint of its weights.
    """

    option: str
    name: str
    folder: Path
    tokenizer: Any
    layers: int
    context: int | None
    weights: str


def locate(option: str, name: str) -> Model:
    """Find a model's files and read its configuration and tokenizer; the weights are not loaded.

    Raises:
        OptionError: There is no such model, or it has no weights.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig

    check_model(name, option)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(option, name)
    check_folder(folder, f"{option} {name}")
    tokenizer, context = load_tokenizer(str(folder), False, option)
    try:
        layers = int(AutoConfig.from_pretrained(folder).get_text_config().num_hidden_layers)
    except (OSError, ValueError, AttributeError) as error:
        raise OptionError(f"{option} {name}: its config.json cannot be used ({error}): check the file") from error
    try:
        digests = saved_digests(folder)
    except SafetensorError as error:
        raise OptionError(f"{option} {folder}: its weights cannot be read ({error}): fetch them anew") from error
    if not digests:
        raise OptionError(f"{option} {folder} has no *.safetensors: save the model with save_pretrained")
    return Model(option, name, folder, tokenizer, layers, context, fingerprint(digests))


def _from_hub(option: str, name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise OptionError(
            f"{option} {name} is no directory, and cannot be had from the hub ({type(error).__name__}): "
            "name a local directory, or check the name"
        ) from error


def check_same_tokens(models: Sequence[Model], dialogue: str, prompting: Prompting) -> None:
    """Make sure that all models read the same tokens.

    Args:
        models: The first one's chat template is used for all, because base models often have none.
        dialogue: A rendered prompt.
        prompting: How it was rendered.

    Raises:
        OptionError: A tokenizer has another vocabulary, or splits the prompt in another way.
    """
    first, *others = models
    ids, vocabulary = chat.token_ids(first.tokenizer, dialogue, prompting), first.tokenizer.get_vocab()
    for other in others:
        if chat.token_ids(other.tokenizer, dialogue, prompting) != ids or other.tokenizer.get_vocab() != vocabulary:
            raise OptionError(
                f"{other.option} {other.name} has another tokenizer than {first.option} {first.name}: "
                "the arms must be trained from the same base"
            )


def prompting_of(
    tokenizer: Any, apply_chat_template: bool | None, system_prompt: str | None, template_args: Mapping[str, Any]
) -> Prompting:
    """How questions are rendered for a tokenizer's model.

    Args:
        tokenizer: A transformers tokenizer.
        apply_chat_template: None: if it has one.
        system_prompt: The system turn; None leaves it to the template.
        template_args: Further variables for the chat template.

    Raises:
        OptionError: Template variables are given, but no template is applied.
    """
    applied = bool(tokenizer.chat_template) if apply_chat_template is None else apply_chat_template
    if template_args and not applied:
        raise OptionError(f"--template-args {dict(template_args)} has no use without a chat template: leave it out")
    return Prompting(applied, system_prompt, template_args)


def device_and_dtype(device: str | None, dtype: str) -> tuple[str, str]:
    """Where models run and what they compute in, with None and `auto` resolved.

    Args:
        device: As torch names it; None: a GPU if there is one.
        dtype: One of `DTYPES`; `auto`: bfloat16 on a GPU that has it, else float32.

    Raises:
        OptionError: torch cannot use the device.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device("--device", device)
    if dtype != "auto":
        return device, dtype
    return device, "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def load_causal(model: Model, dtype: str, device: str) -> Any:
    """A model in evaluation mode.

    Raises:
        OptionError: Its files are damaged, or of no causal language model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from lm_eval_tofu.unlearn.training import first_line

    try:
        whole = AutoModelForCausalLM.from_pretrained(model.folder, dtype=getattr(torch, dtype))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise OptionError(
            f"{model.option} {model.name} cannot be loaded ({first_line(error)}): check its files"
        ) from error
    return whole.to(device).eval()


def load_backbone(model: Model, dtype: str, device: str) -> Any:
    """A model without its output embedding, in evaluation mode; see `load_causal`."""
    return load_causal(model, dtype, device).base_model
