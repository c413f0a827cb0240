"""The losses of unlearning, and the answers' log-probabilities that they are made of.

Everything here returns one value for each sequence; the trainer alone decides what to divide by, because only it has
the number of rows of a step. Notation: pi is the model, pi_ref the model before unlearning, y the answer of |y|
tokens to the question x, log pi(y|x) the sum of its tokens' log-probabilities in nats.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn.data import IGNORED


class AnswerTokens(NamedTuple):
    """Where a batch of B rows and T tokens has its N answer tokens.

    Attributes:
        positions: Shape (N,), int64: index into the flattened (B * T) positions of each position that *predicts* an
            answer token, which is the one before it.
        targets: Shape (N,), int64: the answer token itself.
        rows: Shape (N,), int64: its row.
        counts: Shape (B,), int64: answer tokens of each row.
    """

    positions: Tensor
    targets: Tensor
    rows: Tensor
    counts: Tensor

    def after(self, row: int) -> "AnswerTokens":
        """Those of the rows from `row` on, which is row 0 then; positions stay those of the whole batch."""
        first = int(self.counts[:row].sum())
        return AnswerTokens(self.positions[first:], self.targets[first:], self.rows[first:] - row, self.counts[row:])

    def __len__(self) -> int:
        """Answer tokens in the batch."""
        return len(self.targets)


def answer_tokens(labels: Tensor) -> AnswerTokens:
    """Find the answer tokens.

    With two rows of four tokens, the second padded on the right:

        >>> answer_tokens(torch.tensor([[-100, -100, 7, 2], [-100, 9, 2, -100]]))
        AnswerTokens(positions=tensor([1, 2, 4, 5]), targets=tensor([7, 2, 9, 2]), rows=tensor([0, 0, 1, 1]),
                     counts=tensor([2, 2]))

    Args:
        labels: Shape (B, T); `IGNORED` wherever there is no loss. A label in the first column has no position before
            it and is left out, as in transformers' own loss.
    """
    shifted = labels[:, 1:]
    has_loss = shifted != IGNORED
    rows, columns = has_loss.nonzero(as_tuple=True)
    return AnswerTokens(rows * labels.shape[1] + columns, shifted[rows, columns], rows, has_loss.sum(dim=1))


def answer_logits(model: Any, head: nn.Module, inputs: Mapping[str, Tensor], tokens: AnswerTokens) -> Tensor:
    """Run the model, but project onto the vocabulary at the answer's positions only.

    A chat prompt is longer than its answer, and on a vocabulary of 128,000 the projection is a fifth of a 1B model's
    work and most of its activations: the hidden states of all other positions are dropped before it. This happens
    inside the model's own forward pass, so that wrappers (DDP, FSDP, DeepSpeed, PEFT, mixed precision) see an ordinary
    call.

    Args:
        model: A causal language model of transformers, wrapped or not.
        head: The model's output embedding, `get_output_embeddings()` of the bare model.
        inputs: `input_ids` and `attention_mask`, each (B, T).
        tokens: From `answer_tokens`.

    Returns:
        Shape (N, vocabulary), in the type that the model computes in.

    Raises:
        OptionError: The model does not call its output embedding on its hidden states.
    """
    with _only_at(head, tokens.positions):
        logits: Tensor = model(
            input_ids=inputs["input_ids"], attention_mask=_needed_mask(inputs["attention_mask"]), use_cache=False
        ).logits
    if logits.dim() != 2 or len(logits) != len(tokens):
        raise OptionError(
            f"--model: the architecture {type(model).__name__} does not project its hidden states through its output "
            "embedding alone, which unlearning needs: use another model"
        )
    return logits


def _needed_mask(mask: Tensor) -> Tensor | None:
    """The mask, or None where causal attention alone keeps real tokens from seeing padding.

    That is so where all padding is on the right. Without a mask, attention takes its fast path: no matrix of
    T x T for each row, and grouped heads are not copied.
    """
    # 1 1 0 0 falls only; a row padded on the left rises somewhere.
    return None if bool((mask[:, 1:] <= mask[:, :-1]).all()) else mask


@contextmanager
def _only_at(head: nn.Module, positions: Tensor) -> Iterator[None]:
    def select(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = arguments
        return (hidden.flatten(0, 1).index_select(0, positions.to(hidden.device)), *rest)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def answer_logprobs(logits: Tensor, tokens: AnswerTokens) -> Tensor:
    """log pi(y|x) of each row.

    Args:
        logits: From `answer_logits`, of any floating type.
        tokens: From `answer_tokens`.

    Returns:
        Shape (B,), float32 (float64 for logits in float64), nats; 0 for a row without answer tokens.
    """
    # In float32: in bfloat16 a single token's log-probability is off by up to 0.03, and an answer has dozens.
    return _per_row(_Picked.apply(logits, tokens.targets.to(logits.device)), tokens)


class _Picked(torch.autograd.Function):
    """Log-softmax of logits at one target each, (N, vocabulary) and (N,) to (N,), in float32.

    `F.cross_entropy` would keep a float32 copy of all log-probabilities and make two more for its gradient. This keeps
    the logits alone, in their own type, and works through them in parts, so that only the gradient is added to them.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        norms = [_at_least_float32(part).logsumexp(dim=-1) for part in logits.split(_part(logits))]
        norm = torch.cat(norms) if norms else logits.new_zeros(0)
        ctx.save_for_backward(logits, targets, norm)
        return _at_least_float32(logits.gather(-1, targets[:, None])[:, 0]) - norm

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """d log p_t / d logit_v = [v = t] - p_v."""
        logits, targets, norm = ctx.saved_tensors
        columns, outer, found = targets[:, None], gradients[0][:, None], torch.empty_like(logits)
        size = _part(logits)
        for start in range(0, len(logits), size):
            part = slice(start, start + size)
            gradient = (_at_least_float32(logits[part]) - norm[part, None]).exp_().mul_(-outer[part])
            # Before it is rounded to the logits' type: 1 - p of a token known by heart would be 0 in bfloat16.
            found[part] = gradient.scatter_add_(-1, columns[part], outer[part])
        return found, None


def _part(logits: Tensor) -> int:
    """Rows of logits to work through at a time: few enough to add little memory, many enough to lose no time."""
    return max(1, -(-len(logits) // 16))


def npo_loss(logprobs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Negative preference optimisation: -(2/beta) log sigmoid(-beta (log pi(y|x) - log pi_ref(y|x))).

    Zhang et al. 2024, arXiv 2404.05868, equation 3, the same as (2/beta) log(1 + (pi/pi_ref)^beta). It is
    2 ln 2 / beta where the model is the reference, falls to 0 as the answer is forgotten, and tends to gradient ascent
    as beta does to 0.

    Args:
        logprobs: Shape (B,), log pi(y|x).
        reference: Shape (B,), log pi_ref(y|x).
        beta: Above 0.

    Returns:
        Shape (B,), nats.
    """
    return -(2 / beta) * F.logsigmoid(-beta * (logprobs - reference))


def simnpo_loss(logprobs: Tensor, counts: Tensor, beta: float, margin: float = 0.0) -> Tensor:
    """NPO without a reference, on the mean over tokens: -(2/beta) log sigmoid(-(beta/|y|) log pi(y|x) - margin).

    Fan et al. 2024, arXiv 2410.07163 (its gamma is `margin` here; open-unlearning's `delta` is this divided by beta).

    Args:
        logprobs: Shape (B,), log pi(y|x).
        counts: Shape (B,), |y|.
        beta: Above 0.
        margin: What the weighted mean negative log-probability must exceed.

    Returns:
        Shape (B,), nats per token.
    """
    return -(2 / beta) * F.logsigmoid(-beta * logprobs / counts - margin)


def gradient_ascent_loss(logprobs: Tensor, counts: Tensor) -> Tensor:
    """Gradient ascent on the answer's mean negative log-likelihood: log pi(y|x) / |y|.

    Maini et al. 2024 (TOFU), arXiv 2401.06121, section 4.1; gradient difference is this plus the retain rows' loss. It
    has no lower bound: the model collapses if it goes on.

    Args:
        logprobs: Shape (B,), log pi(y|x).
        counts: Shape (B,), |y|.

    Returns:
        Shape (B,), nats per token.
    """
    return logprobs / counts


def retain_nll(logprobs: Tensor) -> Tensor:
    """The retain rows' negative log-likelihood, -log pi(y|x): shape (B,), nats, summed over the answer's tokens."""
    return -logprobs


def retain_kl(logits: Tensor, reference_logits: Tensor, tokens: AnswerTokens) -> Tensor:
    """KL(pi_ref || pi) between the distributions over the vocabulary, summed over the answer's positions.

    Maini et al. 2024 (TOFU), arXiv 2401.06121, section 4.1, "KL minimization".

    Args:
        logits: Shape (N, vocabulary), the model's.
        reference_logits: The same shape, the reference's, without gradient.
        tokens: From `answer_tokens`.

    Returns:
        Shape (B,), float32, nats.
    """
    ours, reference = (F.log_softmax(_at_least_float32(each), dim=-1) for each in (logits, reference_logits))
    return _per_row(F.kl_div(ours, reference, reduction="none", log_target=True).sum(dim=-1), tokens)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _per_row(values: Tensor, tokens: AnswerTokens) -> Tensor:
    """Sum N values over the rows that they belong to."""
    return values.new_zeros(len(tokens.counts)).index_add(0, tokens.rows.to(values.device), values)
