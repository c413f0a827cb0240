"""From what a backend returns to the answer that is judged, alike on every backend."""

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from lm_eval_tofu.tasks import checks


class Generation(NamedTuple):
    """One generated answer.

    Attributes:
        text: The answer without special tokens and outer white space; empty where reasoning never ended.
        cut: 1 if it ran into the limit of new tokens, else 0; NaN where nothing can tell: without a tokenizer, and with
            reasoning, which the backend has taken away and which used up part of the limit.
        unfinished: 1 if it is reasoning that never ended, else 0; NaN without `think_end_token`.
    """

    text: str
    cut: float
    unfinished: float

    @property
    def holds_reasoning(self) -> bool:
        """Whether the answer contains the end of reasoning, as most models write it: nobody removed the reasoning."""
        return "</think>" in self.text


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the texts that a backend generated.

    Attributes:
        tokenizer: The model's; None where the turns are left to a server.
        limit: Most new tokens, `max_gen_toks`.
        think_end_token: The token or text that ends reasoning, as lm-eval's model argument of that name: up to it
            lm-eval takes everything away, and without it nothing. None for models that do not reason.
    """

    tokenizer: Any
    limit: int
    think_end_token: str | int | None = None

    def read(self, raw: str) -> Generation:
        """The answer in a generated text.

        vLLM and servers of completions leave special tokens in it, transformers does not.
        """
        answer, unfinished = raw, math.nan
        if self.think_end_token is not None:
            end = self._end_of_reasoning
            answer = raw.rpartition(end)[2]  # a backend without that argument leaves the reasoning in
            unfinished = float(end not in raw and self._is_unfinished(raw))
        text = "" if unfinished == 1 else _without(special_texts(self.tokenizer), answer).strip()
        known = self.tokenizer is not None and self.think_end_token is None
        return Generation(text, float(self._is_full(raw)) if known else math.nan, unfinished)

    def __post_init__(self) -> None:
        """Warn of what reasoning does to the limit."""
        if self.think_end_token is not None:
            checks.warn_once(
                f"reasoning and answer share max_gen_toks={self.limit}: reasoning that does not end within it is no "
                "answer and is counted as reasoning_unfinished, and nothing can tell which answers were cut "
                "(generations_cut has no value): pass a larger --gen_kwargs max_gen_toks=4096 to all arms"
            )

    @property
    def _end_of_reasoning(self) -> str:
        end = self.think_end_token
        if isinstance(end, int) or (end or "").isdigit():
            return str(self.tokenizer.decode([int(end or 0)])) if self.tokenizer is not None else str(end)
        return str(end)

    def _is_unfinished(self, raw: str) -> bool:
        """Whether a text without the end of reasoning is reasoning, and not an answer from which it was taken away.

        It begins with the opening tag, or fills the limit, of which an answer after reasoning has a part only.
        """
        end = self._end_of_reasoning
        begins = "/" in end and raw.lstrip().startswith(end.replace("/", "", 1))
        return begins or (self.tokenizer is not None and self._is_full(raw))

    def _is_full(self, raw: str) -> bool:
        # Text can take a token less than it was generated with, hence the margin.
        return len(self.tokenizer(raw, add_special_tokens=False)["input_ids"]) >= 0.98 * self.limit


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """The special tokens that `skip_special_tokens` leaves out, the longest first; none without a tokenizer."""
    if tokenizer is None:
        return ()
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(sorted({*added, *tokenizer.all_special_tokens}, key=lambda text: (-len(text), text)))


def _without(texts: tuple[str, ...], text: str) -> str:
    # re keeps its compiled patterns.
    return re.sub("|".join(map(re.escape, texts)), "", text) if texts else text
