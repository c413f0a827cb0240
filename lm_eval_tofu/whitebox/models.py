"""The models of a white-box audit: its options, where the models are, whether they can be compared, loading them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import chat, tofu
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.evaluation import check_device
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.unlearn.models import check_folder, check_model, load_tokenizer
from lm_eval_tofu.unlearn.models import load_causal as load
from lm_eval_tofu.unlearn.options import DataOptions, PromptOptions, option

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(kw_only=True)
class AuditConfig(PromptOptions, DataOptions):
    """The options of every audit that reads from a model what its answers do not show."""

    model: str = field(metadata=option("the model to audit: directory or hub name", metavar="M"))
    output: Path = field(
        metadata=option("directory of the results, and of what an interrupted run resumes from", "-o", metavar="DIR")
    )
    forget_split: str = field(default="forget10", metadata=option("whose rows are audited", metavar="SPLIT"))
    batch_size: int = field(default=16, metadata=option("rows that go through a model at a time", metavar="N"))
    device: str | None = field(
        default=None, metadata=option("cpu, cuda, ... (default: a GPU if there is one)", metavar="D")
    )
    dtype: str = field(
        default="auto",
        metadata=option(f"what models compute in: one of {', '.join(DTYPES)}; auto: bfloat16 on a GPU, else float32"),
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
        tofu.retain_split(self.forget_split)
        if self.batch_size < 1:
            raise OptionError(f"--batch-size {self.batch_size} is less than 1: give 1 or more")
        if self.dtype not in DTYPES:
            raise OptionError(f"--dtype {self.dtype!r} is unknown: use one of {', '.join(DTYPES)}")
        if self.output.exists() and not self.output.is_dir():
            raise OptionError(f"--output {self.output} is a file: name a directory")

    def prompting_for(self, tokenizer: Any) -> Prompting:
        """How questions are rendered for a tokenizer's model.

        Raises:
            OptionError: Template variables are given, but no template is applied.
        """
        applied = bool(tokenizer.chat_template) if self.apply_chat_template is None else self.apply_chat_template
        if self.template_args and not applied:
            raise OptionError(
                f"--template-args {dict(self.template_args)} has no use without a chat template: leave it out"
            )
        return Prompting(applied, self.system_prompt, self.template_args)

    def settings(
        self, source: tofu.Source, arms: Mapping[str, "Model"], prompting: Prompting, device: str, dtype: str
    ) -> dict[str, Any]:
        """What is recorded with the results: data, models and weights, prompts, and how the models were run."""
        return {
            "forget_split": self.forget_split,
            "tofu": str(source),
            "models": {arm: model.name for arm, model in arms.items()},
            "weights": {arm: model.weights for arm, model in arms.items()},
            "prompting": asdict(prompting),
            "dtype": dtype,
            "device": device,
            "batch_size": self.batch_size,
        }


class Model(NamedTuple):
    """A model that is not loaded yet."""

    option: str  # the option that named it, for messages
    name: str  # directory or hub name
    folder: Path  # directory of its files
    tokenizer: Any
    layers: int  # number of transformer layers
    context: int | None  # longest sequence in tokens; None: its configuration does not state it
    weights: str  # fingerprint of its weights

    @property
    def identity(self) -> list[str]:
        """Weights and configuration: the same weights make another model with, say, fewer layers."""
        return [self.weights, (self.folder / "config.json").read_text(encoding="utf-8")]


def locate(option: str, name: str) -> Model:
    """Find a model's files and read its configuration and tokenizer; the weights are not loaded.

    Raises:
        OptionError: There is no such model, or it has no weights.
    """
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
    weights = weights_fingerprint(folder)
    if weights is None:
        raise OptionError(f"{option} {folder} has no *.safetensors: save the model with save_pretrained")
    return Model(option, name, folder, tokenizer, layers, context, weights)


def _from_hub(option: str, name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise OptionError(
            f"{option} {name} is no directory, and cannot be downloaded from the hub ({type(error).__name__}): "
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
    """A model in evaluation mode; see `lm_eval_tofu.unlearn.models.load_causal`."""
    import torch

    return load(model.folder, getattr(torch, dtype), f"{model.option} {model.name}").to(device).eval()


def load_backbone(model: Model, dtype: str, device: str) -> Any:
    """A model without its output embedding, in evaluation mode; see `load_causal`."""
    return load_causal(model, dtype, device).base_model
