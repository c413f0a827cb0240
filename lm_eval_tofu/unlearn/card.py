"""Writes the first model card of a checkpoint: base model, licence, data and settings."""

from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_tofu import tofu

CLOSING = "All settings are recorded in the JSON file beside the weights."
"""The sentence by which `lm-eval-tofu card` recognises a text that it may replace."""


ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a directory holds LoRA adapters that were not merged into a model."""
    return (folder / ADAPTER_CONFIG).is_file()


class Dataset(NamedTuple):
    """The data that a model was trained or evaluated on.

    Attributes:
        name: For readers.
        hub_id: On the hub; None for the miniature, which is not there.
    """

    name: str
    hub_id: str | None

    def part(self, split: str) -> str:
        """A split of it, for readers."""
        return f"{split} of the {self.name}" if self.hub_id is None else f"{self.name}'s {split}"


MINIATURE = Dataset("TOFU miniature", None)


def dataset(source: tofu.Source) -> Dataset:
    """What a source is called; a directory is taken for a copy of TOFU, whose rows and columns it must have."""
    if source.kind == "mini":
        return MINIATURE
    hub_id = source.location if source.kind == "hub" else tofu.HUB_ID
    return Dataset("TOFU" if hub_id == tofu.HUB_ID else hub_id, hub_id)


class Origin(NamedTuple):
    """What the card of the model that training started from states.

    Attributes:
        base_model: Its name on the hub, or the one that its own card names; None where there is none.
        license: Its licence's identifier on the hub.
        license_name: A licence's own name, where the identifier is `other`.
        license_link: Where that licence can be read.
    """

    base_model: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None


def origin(model: str | None) -> Origin:
    """Read the base's card without touching the network; empty where it has none.

    Args:
        model: Directory or hub name; None for a model from scratch.
    """
    if model is None:
        return Origin()
    from huggingface_hub import ModelCard, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(model).expanduser()
    name = None if folder.is_dir() else model
    try:
        path = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(model, "README.md")
    except HFValidationError:  # a directory of another machine
        return Origin()
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return Origin(name)
    try:
        data = ModelCard.load(Path(path), ignore_metadata_errors=True).data
    except (OSError, ValueError):
        return Origin(name)
    base = data.base_model if isinstance(data.base_model, str) else None
    return Origin(name or base, *(_text(data.get(each)) for each in ("license", "license_name", "license_link")))


def write(
    folder: Path,
    *,
    title: str,
    model: str | None,
    data: Dataset,
    summary: str,
    settings: dict[str, Any],
    tags: list[str],
) -> None:
    """Write `README.md` with the metadata block that the hub reads.

    Args:
        folder: The checkpoint.
        title: Heading.
        model: As in `origin`.
        data: What it was trained on.
        summary: What was done, in a sentence or two of Markdown.
        settings: What the reader should know at a glance, by name.
        tags: Tags beside those that all our checkpoints have.
    """
    block = metadata(folder, model, data, tags)
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    text = (
        f"---\n{block.to_yaml()}\n---\n\n# {title}\n\n{summary}\n\n| | |\n|---|---|\n{rows}\n\n"
        f"{CLOSING} A model that looks as if it had "
        "forgotten may still know: see the leak audits of lm-eval-tofu.\n"
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def metadata(folder: Path, model: str | None, data: Dataset, tags: list[str]) -> Any:
    """The metadata block of a card, as huggingface_hub's `ModelCardData`.

    Args:
        folder: The checkpoint.
        model: As in `origin`.
        data: What it was trained on.
        tags: Tags beside those that all our checkpoints have.
    """
    from huggingface_hub import ModelCardData

    return ModelCardData(
        language="en",
        library_name="peft" if is_adapter(folder) else "transformers",
        pipeline_tag="text-generation",
        datasets=None if data.hub_id is None else [data.hub_id],
        tags=["lm-eval-tofu", "tofu", *tags],
        **origin(model)._asdict(),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
