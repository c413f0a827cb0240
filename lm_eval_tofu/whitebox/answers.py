"""Runs a causal language model over answers: the batches, and statistics of the vocabulary at the answers' tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lm_eval_tofu.unlearn.data import AnswerCollator, Example
from lm_eval_tofu.unlearn.loss import AnswerTokens, answer_logits, answer_logprobs, answer_tokens

_PART = 64
"""Answer positions whose vocabulary is held in float32 at a time."""


class TokenValues(NamedTuple):
    """Statistics of the N answer tokens of a batch, or the T of one row; each of shape (N,), float32."""

    logprob: Any  # log p(token | the tokens before it), nats
    is_top: Any  # 1 where the token is the most likely one, else 0
    mean: Any  # mean of log p(x) over the vocabulary with x drawn from p at that position, nats
    variance: Any  # its variance


class Batch(NamedTuple):
    """Rows that go through the model together."""

    rows: list[int]  # their numbers, shape (B,)
    inputs: Mapping[str, Tensor]  # `input_ids` and `attention_mask`, each (B, T)
    tokens: AnswerTokens  # the positions of their answer tokens


def batches(examples: Sequence[Example], rows: Sequence[int], batch_size: int, device: str) -> Iterator[Batch]:
    """Batches of the named rows in the order given, padded on the right.

    Args:
        examples: All rows; their labels say which tokens are asked about.
        rows: Which of them, and in what order: by length, a batch holds little padding.
        batch_size: Rows of a batch, at most.
        device: Where the model is.
    """
    collate = AnswerCollator(pad_token_id=0)
    for start in range(0, len(rows), batch_size):
        numbers = list(rows[start : start + batch_size])
        inputs = {name: each.to(device) for name, each in collate([examples[row] for row in numbers]).items()}
        yield Batch(numbers, inputs, answer_tokens(inputs["labels"]))


def token_values(model: Any, batch: Batch) -> TokenValues:
    """One forward pass over a batch; only its answer positions are projected onto the vocabulary."""
    with torch.inference_mode():
        logits = answer_logits(model, model.get_output_embeddings(), batch.inputs, batch.tokens)
        return vocabulary_values(logits, batch.tokens.targets)


def vocabulary_values(logits: Tensor, targets: Tensor) -> TokenValues:
    """Statistics of the predicted distributions, in float32 whatever the logits' type.

    Args:
        logits: Shape (N, vocabulary).
        targets: The tokens that are there, shape (N,).
    """
    parts = []
    for part, target in zip(logits.split(_PART), targets.split(_PART), strict=True):
        logprobs = part.float().log_softmax(dim=-1)
        chosen = logprobs.gather(-1, target[:, None])[:, 0]
        is_top = logprobs.argmax(dim=-1) == target
        # A token that is ruled out (-inf) adds nothing; below -110 its probability is 0 in float32.
        logprobs.clamp_(min=-110)
        weighted = logprobs.exp().mul_(logprobs)
        mean = weighted.sum(dim=-1)
        variance = weighted.mul_(logprobs).sum(dim=-1) - mean.square()
        parts.append(torch.stack([chosen, is_top.float(), mean, variance]))
    return TokenValues(*torch.cat(parts, dim=1).cpu()) if parts else TokenValues(*torch.zeros(4, 0))


def split_rows(values: TokenValues, tokens: AnswerTokens) -> list[Tensor]:
    """The values of each row, shape (4, T), in the order of `TokenValues`' fields."""
    return list(torch.stack(list(values)).split(tokens.counts.tolist(), dim=1))


def gradient_norm(model: Any, batch: Batch) -> float:
    """Mean over parameter tensors of the 2-norm of the gradient of a row's loss (mean over its tokens, nats)."""
    logits = answer_logits(model, model.get_output_embeddings(), batch.inputs, batch.tokens)
    loss = -answer_logprobs(logits, batch.tokens).sum() / len(batch.tokens)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).mean())
