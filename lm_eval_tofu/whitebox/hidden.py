"""Computes hidden states of prompts and candidates, and stores them on disk.

They are read out of a model in batches and written one file a shard, so that they need not fit into memory and a killed
run resumes. A store belongs to one model and one list of sequences: its folder's name is the fingerprint of both, so
states of other weights, data or prompts are never mistaken for these, and arms with the same weights share a store.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu import chat, files
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.whitebox.candidates import Masked
from lm_eval_tofu.whitebox.models import Model, load_backbone

SHARD = 256
"""Sequences in a shard: what a killed run has to do again at most."""
BEFORE_CANDIDATE = "Answer:"
"""What the base model reads before a candidate: in many models the first position holds no content."""

States = npt.NDArray[np.float32]


class Tokens(NamedTuple):
    """A sequence, and over which of its tokens the hidden states are averaged."""

    ids: tuple[int, ...]
    start: int  # first position of the mean; the last one for the state that predicts the next token


def masked_prompt(tokenizer: Any, row: Masked, prompting: Prompting) -> Tokens:
    """The tokens of a question and its answer before the fact, of which the last one's state is probed.

    They are the beginning of the tokens that are trained on and scored: a token that holds the fact's beginning
    together with what comes before is not among them.

    Raises:
        PromptError: As `lm_eval_tofu.chat.encode_answer`.
    """
    encoded = chat.encode_answer(tokenizer, row.question, row.answer, prompting)
    whole = encoded.prompt_ids + encoded.answer_ids
    cut = chat.token_ids(tokenizer, masked_text(tokenizer, row, prompting), prompting)
    length = max(_common(whole, cut), len(encoded.prompt_ids))
    return Tokens(tuple(whole[:length]), length - 1)


def masked_text(tokenizer: Any, row: Masked, prompting: Prompting) -> str:
    """A question and its answer before the fact, rendered."""
    turns = [{"role": "user", "content": row.question}]
    return chat.render_dialogue(tokenizer, turns, prompting, row.answer[: row.cut].rstrip())


def candidate_tokens(tokenizer: Any, lead: str, text: str) -> Tokens:
    """A candidate's tokens as the base model reads them, after words that are no part of the mean."""
    before = f"{BEFORE_CANDIDATE} {lead}" if lead else BEFORE_CANDIDATE
    ids = list(tokenizer(f"{BEFORE_CANDIDATE} {lead}{text}")["input_ids"])
    start = min(_common(ids, list(tokenizer(before)["input_ids"])), len(ids) - 1)
    return Tokens(tuple(ids), start)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))


def candidate_vectors(
    root: Path, base: Model, candidates: Sequence[Tokens], dtype: str, batch_size: int, device: str
) -> States:
    """e(c) of every candidate from the base model.

    The first token's embedding is a part of its own: it is what the last layer of a prompt just before it predicts, and
    in the mean over a long candidate it would be lost.

    Returns:
        Shape (candidates, 3 * width): the first token's embedding, the mean embedding, the mean of the last layer.
    """
    first = [Tokens(tokens.ids[: tokens.start + 1], tokens.start) for tokens in candidates]
    parts = []
    for sequences, layers in ((first, [0]), (candidates, [0, base.layers])):
        store = Store(root, base, sequences, layers, dtype)
        store.fill(batch_size, device)
        parts += [store.read(layer) for layer in layers]
    return np.concatenate(parts, axis=1)


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
        content = json.dumps([*model.identity, dtype, self._layers, [[each.start, *each.ids] for each in sequences]])
        self.folder = root / hashlib.sha256(content.encode()).hexdigest()[:16]
        # By length, so that a batch holds little padding; the longest first, so that memory runs out at once or never.
        order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index].ids))
        parts = [order[start : start + SHARD] for start in range(0, len(order), SHARD)]
        self._shards = {self.folder / f"{number:05}.safetensors": part for number, part in enumerate(parts)}

    def missing(self) -> list[Path]:
        """Shards that do not exist or are damaged."""
        return [path for path in self._shards if not self._is_whole(path)]

    def fill(self, batch_size: int, device: str) -> None:
        """Compute the missing shards; the model is loaded only if there are any, and freed afterwards.

        Args:
            batch_size: Sequences that go through the model at a time.
            device: Where it runs.

        Raises:
            OptionError: A sequence does not fit into the context, or the model's files cannot be loaded.
        """
        missing, model = self.missing(), self._model
        if not missing:
            return
        longest = max(len(each.ids) for each in self._sequences)
        if model.context is not None and longest > model.context:
            raise OptionError(
                f"{model.option} {model.name}: its context of {model.context} tokens is shorter than a prompt's "
                f"{longest}: use a model with a longer context"
            )
        from tqdm import tqdm

        backbone = load_backbone(model, self._dtype, device)
        for path in tqdm(missing, desc=f"hidden states of {Path(model.name).name}", unit="shard"):
            self._write(path, backbone, batch_size, device)

    def read(self, layer: int) -> States:
        """One layer's states, shape (sequences, width), in the order of the sequences."""
        from safetensors import safe_open

        rows: list[Any] = [None] * len(self._sequences)
        for path, indices in self._shards.items():
            with safe_open(path, framework="pt") as tensors:
                states = tensors.get_tensor(str(layer)).float().numpy()
            for index, state in zip(indices, states, strict=True):
                rows[index] = state
        return np.stack(rows)

    def _is_whole(self, path: Path) -> bool:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as tensors:
                return set(tensors.keys()) == {str(layer) for layer in self._layers}
        except (OSError, SafetensorError):
            return False

    def _write(self, path: Path, backbone: Any, batch_size: int, device: str) -> None:
        import torch
        from safetensors.torch import save_file

        sequences = [self._sequences[index] for index in self._shards[path]]
        batches = (sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size))
        states = torch.cat([pooled_states(backbone, batch, self._layers, device) for batch in batches], dim=1)
        states = states if self._dtype == "float32" else states.bfloat16()
        tensors = {str(layer): each.contiguous() for layer, each in zip(self._layers, states, strict=True)}
        with files.replacing(path) as temporary:
            save_file(tensors, temporary)


def pooled_states(backbone: Any, batch: Sequence[Tokens], layers: Sequence[int], device: str) -> Any:
    """Mean hidden state of each sequence from its `start` on, shape (layers, sequences, width), float32, on the CPU."""
    import torch

    lengths = torch.tensor([len(each.ids) for each in batch])
    starts = torch.tensor([each.start for each in batch])
    # Padding comes last and is masked by length: no token attends to it.
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(each.ids) for each in batch], batch_first=True)
    positions = torch.arange(ids.shape[1])
    mask = positions[None, :] < lengths[:, None]
    with torch.inference_mode():
        states = backbone(
            input_ids=ids.to(device), attention_mask=mask.long().to(device), output_hidden_states=True, use_cache=False
        ).hidden_states
        counted = (mask & (positions[None, :] >= starts[:, None])).to(device)
        shares = (counted / counted.sum(dim=1, keepdim=True))[:, :, None]
        # Other positions are filled with 0, not weighted with 0: 0 times infinity is not a number.
        return torch.stack(
            [(states[layer].float().masked_fill(~counted[:, :, None], 0) * shares).sum(dim=1).cpu() for layer in layers]
        )
