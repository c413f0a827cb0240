"""From a backend's text to the answer that is judged: special tokens, the token limit, reasoning."""

import math
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu.tasks.generations import Reader, special_texts


class Words:
    """A tokenizer whose tokens are words; the special ones are written as they are."""

    class Added:
        def __init__(self, content: str, special: bool) -> None:
            self.content, self.special = content, special

    added_tokens_decoder = {1: Added("<|end|>", True), 2: Added("<|end|>2", True), 3: Added("<think>", False)}  # noqa: RUF012
    all_special_tokens = ("<s>", "<|end|>")

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    def decode(self, ids: list[int]) -> str:
        return {7: "</think>"}[ids[0]]


def test_special_tokens_are_no_part_of_an_answer() -> None:
    """vLLM leaves them in; the longest is taken out first, and added tokens that are not special stay."""
    reader = Reader(Words(), limit=100)
    assert reader.read("<s> Born in <|end|>2 Oslo.<|end|>\n").text == "Born in  Oslo."
    assert reader.read("<|end|>" * 9).text == ""
    assert reader.read("<think> Oslo").text == "<think> Oslo"
    assert Reader(None, limit=100).read("<s> Oslo").text == "<s> Oslo"


def test_special_tokens_of_a_real_tokenizer(tiny_model: Path) -> None:
    """What transformers' own decoding leaves out, which lm-eval's hf backend uses."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = special_texts(tokenizer)
    assert "<|im_end|>" in texts
    for text in (*texts, f"Born in{texts[0]} Oslo{texts[-1]}"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert Reader(tokenizer, 100).read(text).text == tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(("words", "cut"), [(90, 0), (97, 0), (98, 1), (100, 1)])
def test_an_answer_that_fills_the_limit_is_cut(words: int, cut: int) -> None:
    """A text may take a token less than it was generated with, hence 98 %."""
    assert Reader(Words(), limit=100).read("word " * words).cut == cut


def test_cut_counts_special_tokens_and_needs_a_tokenizer() -> None:
    generation = Reader(Words(), limit=10).read("<|end|> " * 10)
    assert (generation.text, generation.cut) == ("", 1)
    assert math.isnan(generation.unfinished)
    assert math.isnan(Reader(None, limit=10).read("word " * 10).cut)


@pytest.mark.parametrize("end", ["</think>", 7, "7"])
@pytest.mark.parametrize(
    ("raw", "text", "unfinished"),
    [
        ("Born in Oslo.", "Born in Oslo.", 0),  # the backend took the reasoning away
        ("Well </think> hm </think>\n\nBorn in Oslo.", "Born in Oslo.", 0),  # it did not
        ("<think>\nOslo, I think", "", 1),
        ("Oslo, I think, " * 40, "", 1),  # the template opened the reasoning; it fills the limit
        ("</think>", "", 0),
    ],
)
def test_reasoning(end: Any, raw: str, text: str, unfinished: int) -> None:
    generation = Reader(Words(), limit=100, think_end_token=end).read(raw)
    assert (generation.text, generation.unfinished) == (text, unfinished)
    assert math.isnan(generation.cut)


def test_an_end_of_reasoning_without_an_opening_tag() -> None:
    """Only the limit can tell there; without a tokenizer nothing can."""
    end = "<|channel|>final<|message|>"
    assert Reader(Words(), 100, end).read("<|channel|>analysis Oslo").unfinished == 0
    assert Reader(Words(), 4, end).read("a b c d").unfinished == 1
    assert Reader(None, 4, end).read("a b c d").unfinished == 0
    assert Reader(None, 4, "</think>").read("<think> b c d").unfinished == 1
