"""From rows of TOFU to the tensors of a training step.

The tokens with loss are the tokens that the tasks score: both come from `lm_eval_tofu.chat.encode_answer`.
"""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch

from lm_eval_tofu.chat import TEXT_BEFORE_ANSWER, Prompting, encode_answer, text_before_answer
from lm_eval_tofu.errors import OptionError

log = logging.getLogger(__name__)

IGNORED = -100
"""The label of a position without loss: torch's `ignore_index`, which transformers' losses use."""


class Example(TypedDict):
    """One row, tokenized; both lists have the same length T.

    Attributes:
        input_ids: Prompt and answer, end of turn and end of sequence included.
        labels: `IGNORED` on the prompt, the token itself on the answer (the model shifts them).
    """

    input_ids: list[int]
    labels: list[int]


def encode_row(tokenizer: Any, row: Mapping[str, Any], prompting: Prompting) -> Example:
    """Tokenize one question and its answer."""
    encoded = encode_answer(tokenizer, row["question"], row["answer"], prompting)
    return Example(
        input_ids=encoded.prompt_ids + encoded.answer_ids,
        labels=[IGNORED] * len(encoded.prompt_ids) + encoded.answer_ids,
    )


def encode_rows(
    tokenizer: Any, rows: Iterable[Mapping[str, Any]], prompting: Prompting, max_length: int | None = None
) -> list[Example]:
    """Tokenize rows, in their order.

    Args:
        tokenizer: A transformers tokenizer.
        rows: Each with `question` and `answer`.
        prompting: How to render them.
        max_length: The model's context in tokens; None: not checked.

    Raises:
        OptionError: A row is longer than `max_length`. It is not cut: a cut answer would be learned as a whole one.
        PromptError: As `lm_eval_tofu.chat.encode_answer`.
    """
    text = text_before_answer(tokenizer, prompting)
    if text:
        _warn_once(TEXT_BEFORE_ANSWER % (text, "--template-args '{\"enable_thinking\": false}'"))
    examples = []
    for row in rows:
        example = encode_row(tokenizer, row, prompting)
        length = len(example["input_ids"])
        if max_length is not None and length > max_length:
            raise OptionError(
                f"model: its context of {max_length} tokens is shorter than a row's {length} "
                f"({row['question'][:60]!r}): use a model with a longer context"
            )
        examples.append(example)
    return examples


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


@dataclass(frozen=True, slots=True)
class AnswerCollator:
    """Pads a batch on the right, to its longest row.

    The attention mask comes from the rows' lengths, never from token values. Where the padding token is also the end of
    turn, as in most chat models, a mask made of `input_ids != pad_token_id` hides the prompt's own end-of-turn tokens.

    With `pad_token_id=2`, where 2 is the end of turn too:

        >>> AnswerCollator(2)([
        ...     {"input_ids": [5, 2, 7, 2], "labels": [-100, -100, 7, 2]},
        ...     {"input_ids": [6, 2, 2], "labels": [-100, -100, 2]},
        ... ])
        {'input_ids':      tensor([[   5,    2,    7,    2],
                                   [   6,    2,    2,    2]]),
         'labels':         tensor([[-100, -100,    7,    2],
                                   [-100, -100,    2, -100]]),
         'attention_mask': tensor([[   1,    1,    1,    1],
                                   [   1,    1,    1,    0]])}

    Attributes:
        pad_token_id: What fills `input_ids`; any token will do, as no position attends to it and none has loss on it.
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Collate B examples into three int64 tensors of shape (B, T), T the longest example's length."""
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        positions = torch.arange(int(lengths.max()))
        return {
            "input_ids": self._padded([example["input_ids"] for example in examples], self.pad_token_id),
            "labels": self._padded([example["labels"] for example in examples], IGNORED),
            "attention_mask": (positions[None, :] < lengths[:, None]).long(),
        }

    @staticmethod
    def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
