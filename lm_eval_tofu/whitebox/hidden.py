"""Hidden states on disk: read out of a model in batches, one file a shard, so that neither memory nor a kill matters.

A store belongs to one model and one list of sequences. Its folder's name is the fingerprint of both, so states of other
weights, data or prompts are never taken for these, and two arms with the same weights share one store.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn.checkpoint import fingerprint, saved_digests
from lm_eval_tofu.unlearn.models import check_folder

log = logging.getLogger(__name__)

SHARD = 256
"""Sequences in a shard: what a killed run has to do again at most."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


class Tokens(NamedTuple):
    """Tokens, and over which of them the hidden states are averaged.

    Attributes:
        ids: Token ids.
        start: First position of the mean; the last of all for the state that predicts what comes next.
    """

    ids: tuple[int, ...]
    start: int


class Model(NamedTuple):
    """A model that is not loaded yet.

    Attributes:
        option: The option that named it, for messages.
        name: Directory or hub name.
        folder: Where its files lie.
        layers: Number of transformer layers.
        context: Longest sequence in tokens; None: it does not say.
        weights: Fingerprint of its weights.
    """

    option: str
    name: str
    folder: Path
    layers: int
    context: int | None
    weights: str


def locate(option: str, name: str) -> Model:
    """Find a model's files and read its configuration; nothing is loaded.

    Raises:
        OptionError: There is no such model, or it has no weights.
    """
    from transformers import AutoConfig

    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(option, name)
    check_folder(folder, f"{option} {name}")
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        layers = int(config.num_hidden_layers)
    except (OSError, ValueError, AttributeError) as error:
        raise OptionError(f"{option} {name}: its config.json cannot be used ({error}): check the file") from error
    return Model(
        option, name, folder, layers, getattr(config, "max_position_embeddings", None), _weights(option, folder)
    )


def _from_hub(option: str, name: str) -> Path:
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise OptionError(f"{option} {name} is no directory: name a model's directory or its name on the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise OptionError(
            f"{option} {name} is no directory, and cannot be had from the hub ({type(error).__name__}): "
            "name a local directory, or check the name"
        ) from error


def _weights(option: str, folder: Path) -> str:
    from safetensors import SafetensorError

    try:
        digests = saved_digests(folder)
    except SafetensorError as error:
        raise OptionError(f"{option} {folder}: its weights cannot be read ({error}): fetch them anew") from error
    if not digests:
        raise OptionError(f"{option} {folder} has no *.safetensors: save the model with save_pretrained")
    return fingerprint(digests)


class Store:
    """Hidden states of one model on one list of sequences.

    Attributes:
        folder: Its shards, `00000.safetensors` and so on, each with one tensor a layer.
    """

    def __init__(
        self, root: Path, model: Model, sequences: Sequence[Tokens], layers: Sequence[int], dtype: str
    ) -> None:
        """Name the store; nothing is computed yet.

        Args:
            root: Directory of all stores.
            model: Whose states.
            sequences: What is read.
            layers: Which layers; 0 is the embeddings, L the last layer's output after the final norm.
            dtype: What the model computes in: float32, bfloat16 or float16.
        """
        self._model, self._sequences, self._layers, self._dtype = model, sequences, list(layers), dtype
        content = json.dumps([model.weights, dtype, self._layers, [[each.start, *each.ids] for each in sequences]])
        self.folder = root / hashlib.sha256(content.encode()).hexdigest()[:16]
        # By length, so that a batch holds little padding; the longest first, so that memory runs out at once or never.
        self._order = sorted(range(len(sequences)), key=lambda place: -len(sequences[place].ids))

    def missing(self) -> list[int]:
        """Shards that are not there or not whole."""
        return [number for number in range(self._shards()) if not self._is_whole(number)]

    def fill(self, batch_size: int, device: str) -> None:
        """Compute the shards that are missing; the model is loaded only if there are any, and freed afterwards.

        Args:
            batch_size: Sequences that go through the model at a time.
            device: Where it runs.

        Raises:
            OptionError: A sequence does not fit into the context, or the model's files cannot be loaded.
        """
        missing = self.missing()
        if not missing:
            return
        longest = max(len(each.ids) for each in self._sequences)
        if self._model.context is not None and longest > self._model.context:
            raise OptionError(
                f"{self._model.option} {self._model.name}: its context of {self._model.context} tokens is shorter than "
                f"a prompt's {longest}: use a model with a longer context"
            )
        from tqdm import tqdm

        backbone = load_backbone(self._model, self._dtype, device)
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in tqdm(missing, desc=f"hidden states of {Path(self._model.name).name}", unit="shard"):
            self._write(number, backbone, batch_size, device)

    def read(self, layer: int) -> npt.NDArray[np.float32]:
        """One layer's states, shape (sequences, width), in the order of the sequences."""
        from safetensors import safe_open

        parts = []
        for number in range(self._shards()):
            with safe_open(self._path(number), framework="pt") as tensors:
                parts.append(tensors.get_tensor(str(layer)).float().numpy())
        states = np.empty((len(self._order), parts[0].shape[1]), dtype=np.float32)
        states[self._order] = np.concatenate(parts)
        return states

    def _shards(self) -> int:
        return -(-len(self._order) // SHARD)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05}.safetensors"

    def _is_whole(self, number: int) -> bool:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path(number), framework="pt") as tensors:
                return set(tensors.keys()) == {str(layer) for layer in self._layers}
        except (OSError, SafetensorError):
            return False

    def _write(self, number: int, backbone: Any, batch_size: int, device: str) -> None:
        import torch
        from safetensors.torch import save_file

        places = self._order[number * SHARD : (number + 1) * SHARD]
        rows: list[Any] = []
        for start in range(0, len(places), batch_size):
            batch = [self._sequences[place] for place in places[start : start + batch_size]]
            rows.append(pooled_states(backbone, batch, self._layers, device))
        states = torch.cat(rows, dim=1)
        kept = states if self._dtype == "float32" else states.bfloat16()
        tensors = {str(layer): kept[place].contiguous() for place, layer in enumerate(self._layers)}
        with files.replacing(self._path(number)) as temporary:
            save_file(tensors, temporary)


def pooled_states(backbone: Any, batch: Sequence[Tokens], layers: Sequence[int], device: str) -> Any:
    """Mean hidden state of each sequence from its `start` on, shape (layers, sequences, width), float32, on the CPU."""
    import torch

    lengths = torch.tensor([len(each.ids) for each in batch])
    starts = torch.tensor([each.start for each in batch])
    # Padding comes last and is masked by length: no token attends to it, whatever it is.
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(each.ids) for each in batch], batch_first=True)
    positions = torch.arange(ids.shape[1])
    mask = positions[None, :] < lengths[:, None]
    with torch.inference_mode():
        states = backbone(
            input_ids=ids.to(device), attention_mask=mask.long().to(device), output_hidden_states=True, use_cache=False
        ).hidden_states
        counted = (mask & (positions[None, :] >= starts[:, None])).to(device)
        shares = (counted / counted.sum(dim=1, keepdim=True))[:, :, None]
        # What is not counted is taken out, not weighed with 0: 0 times infinity is not a number.
        return torch.stack(
            [(states[layer].float().masked_fill(~counted[:, :, None], 0) * shares).sum(dim=1).cpu() for layer in layers]
        )


def load_backbone(model: Model, dtype: str, device: str) -> Any:
    """A model without its output embedding, in evaluation mode.

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
    return whole.base_model.to(device).eval()


def digest(value: Any) -> str:
    """A short fingerprint of JSON values."""
    return f"{zlib.crc32(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()):08x}"
