"""Activation patching: log-probabilities of tokens where one layer's hidden states are another model's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.whitebox import answers
from lm_eval_tofu.whitebox.answers import Batch

LENS_TOKENS = 256
"""States that go through final norm and head at a time in the logit lens."""


def layers_of(model: Any, name: str) -> nn.ModuleList:
    """The transformer layers of a causal language model.

    Raises:
        OptionError: The architecture has no list of as many layers as its configuration states.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise OptionError(
        f"{name}: the architecture {type(model).__name__} has no list of {count} layers: use another model"
    )


class LayerStates(NamedTuple):
    """A model's states at the N positions that predict a batch's facts."""

    outputs: Tensor  # (layers, N, width): the output of every layer
    normed: Tensor  # (N, width): the last layer's after the model's final norm

    def to(self, device: str) -> "LayerStates":
        """The same on another device."""
        return LayerStates(self.outputs.to(device), self.normed.to(device))

    def to_patch(self, uds_compat: bool) -> Tensor:
        """What takes the place of the layers' outputs; UDS's own code takes the last one after the final norm."""
        return torch.cat([self.outputs[:-1], self.normed[None]]) if uds_compat else self.outputs


def layer_states(model: Any, batch: Batch, name: str) -> LayerStates:
    """Run a model and keep its layers' outputs where the facts' tokens are predicted.

    Args:
        model: The source model.
        batch: Rows; N tokens are asked about.
        name: The option that named the model, for messages.
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(_at(_hidden(output), batch))

    handles = [layer.register_forward_hook(keep) for layer in layers_of(model, name)]
    try:
        with torch.inference_mode():
            last = model.base_model(**_inputs(batch)).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return LayerStates(torch.stack(found), _at(last, batch))


def patched_scores(model: Any, batch: Batch, states: Tensor, name: str) -> Tensor:
    """Mean log-probability of each row's fact with one layer's output replaced at the fact's positions.

    Args:
        model: The full model.
        batch: Rows; N tokens are asked about.
        states: Another model's, shape (layers, N, width).
        name: The option that named the model, for messages.

    Returns:
        Shape (layers, B), float32, on the CPU, nats per token.
    """
    scores = []
    for layer, state in zip(layers_of(model, name), states, strict=True):
        with _replaced(layer, batch.tokens.positions, state):
            scores.append(fact_scores(model, batch))
    return torch.stack(scores)


def fact_scores(model: Any, batch: Batch) -> Tensor:
    """Mean log-probability of each row's fact, shape (B,), float32, on the CPU, nats per token."""
    return _row_means(answers.token_values(model, batch).logprob, batch)


def lens_scores(model: Any, batch: Batch, states: Tensor, name: str) -> Tensor:
    """The logit lens: the full model's final norm and head on every layer's states.

    The states take the place of the last layer's output in a pass over as many tokens of no meaning, so that whatever
    the architecture does behind its layers is done.

    Args:
        model: The full model.
        batch: Rows; N tokens are asked about.
        states: Of any model, shape (layers, N, width).
        name: The option that named the model, for messages.

    Returns:
        Mean log-probability of each row's fact, shape (layers, B), float32, on the CPU, nats per token.
    """
    last = layers_of(model, name)[-1]
    scores = []
    for state in states:
        values = []
        for part, targets in zip(state.split(LENS_TOKENS), batch.tokens.targets.split(LENS_TOKENS), strict=True):
            ids = targets.new_zeros(1, len(targets))
            with torch.inference_mode(), _replaced(last, torch.arange(len(targets), device=ids.device), part):
                logits = model(input_ids=ids, use_cache=False).logits[0]
            values.append(answers.vocabulary_values(logits, targets).logprob)
        scores.append(_row_means(torch.cat(values), batch))
    return torch.stack(scores)


def _hidden(output: Any) -> Tensor:
    """A layer's hidden states (B, T, width); some architectures return them in a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _at(hidden: Tensor, batch: Batch) -> Tensor:
    return hidden.flatten(0, 1).index_select(0, batch.tokens.positions)


def _inputs(batch: Batch) -> dict[str, Any]:
    return {**{name: batch.inputs[name] for name in ("input_ids", "attention_mask")}, "use_cache": False}


def _row_means(values: Tensor, batch: Batch) -> Tensor:
    return torch.stack([part.mean() for part in values.split(batch.tokens.counts.tolist())])


@contextmanager
def _replaced(layer: nn.Module, positions: Tensor, states: Tensor) -> Iterator[None]:
    """Replace a layer's output at positions of the flattened batch by `states` (N, width)."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = _hidden(output)
        flat = hidden.flatten(0, 1).clone()
        flat[positions] = states.to(flat)
        patched = flat.view_as(hidden)
        return (patched, *output[1:]) if isinstance(output, tuple) else patched

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
