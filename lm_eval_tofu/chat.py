"""Renders questions and answers as prompts and tokenizes them, the same way for training and for scoring.

The tokens with loss during training must be the tokens that are scored: `encode_answer` gives them to both. The rule is
the one of the benchmark's own evaluation code (open-unlearning, `preprocess_chat_instance`): the answer's tokens are
what the chat template renders for the assistant's turn after the generation prompt, end of turn included, plus the
end-of-sequence token where the rendering does not end with it. Without a template the prompt is
`Question: {q}\\nAnswer:` and the answer's tokens are the answer and the end of sequence.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, NamedTuple, Self
from unittest import mock

from lm_eval_tofu.errors import PromptError

log = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Prompting:
    """How a question becomes a prompt.

    Attributes:
        apply_chat_template: Render with the tokenizer's chat template; otherwise `Question: {q}\\nAnswer:`.
        system_prompt: Content of the system turn; None leaves it to the template (some add one of their own).
        template_args: Further variables for the template, for example `{"date_string": "10 Apr 2025"}`.
    """

    apply_chat_template: bool
    system_prompt: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)

    def system_turn(self) -> list[dict[str, str]]:
        """The system turn, if there is one."""
        return [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []


class EncodedAnswer(NamedTuple):
    """A prompt and an answer to it.

    Attributes:
        prompt: The rendered prompt, generation prompt included.
        continuation: The text whose tokens are scored: the answer's rendering, end of turn and end of sequence.
        prompt_ids: Token ids of the prompt alone.
        answer_ids: Token ids with loss; `prompt_ids + answer_ids` is what the model sees.
    """

    prompt: str
    continuation: str
    prompt_ids: list[int]
    answer_ids: list[int]


class ExactContext(str):
    """A prompt that keeps its trailing white space.

    lm-eval moves the white space at a context's end into the continuation before it tokenizes. A chat template's prompt
    ends in a line break that belongs to the template; moved, it would be scored as the answer's first token.
    lm-eval 0.4.13 finds that white space with the method `rstrip`, which therefore removes nothing here;
    `check_backend_tokens` asks the backend for its tokens, and so notices a version that finds it otherwise.
    """

    __slots__ = ()

    def rstrip(self, chars: str | None = None, /) -> str:
        """The string itself."""
        return self if chars is None else super().rstrip(chars)


def _render(tokenizer: Any, messages: Messages, prompting: Prompting, *, generation_prompt: bool) -> str:
    """The chat template's text for a system turn and these."""
    import jinja2

    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(
            f"--apply_chat_template is given, but the tokenizer {_name(tokenizer)} has no chat template: "
            "leave the flag out (training: --no-chat-template), or save a template with the tokenizer"
        )
    turns = [*prompting.system_turn(), *messages]
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=generation_prompt, **prompting.template_args
        )
    except jinja2.exceptions.TemplateError as error:
        roles = [turn["role"] for turn in turns]
        advice = "leave out --system_instruction: this template has no system turn" if "system" in roles else "check it"
        raise PromptError(
            f"the chat template of {_name(tokenizer)} cannot render the turns {'/'.join(roles)} ({error}): {advice}"
        ) from error
    return str(text)


def render_prompt(tokenizer: Any, question: str, prompting: Prompting) -> str:
    """The text that asks `question`, up to where the answer begins; see `render_dialogue`."""
    return render_dialogue(tokenizer, [_asked(question)], prompting)


def _asked(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def render_dialogue(tokenizer: Any, messages: Messages, prompting: Prompting, opening: str = "") -> str:
    """The text of a dialogue, up to where the assistant's answer begins.

    Args:
        tokenizer: A transformers tokenizer.
        messages: Turns of user and assistant, the last one the user's; the system turn comes from `prompting`.
        prompting: How to render them.
        opening: Words that begin the assistant's answer.

    Raises:
        PromptError: The tokenizer has no template, or the template refuses these turns.
    """
    if prompting.apply_chat_template:
        return _render(tokenizer, messages, prompting, generation_prompt=True) + opening
    system = f"{prompting.system_prompt}\n\n" if prompting.system_prompt else ""
    text = "".join(
        f"Question: {turn['content']}\nAnswer:" if turn["role"] == "user" else f" {turn['content']}\n\n"
        for turn in messages
    )
    return f"{system}{text} {opening}" if opening else f"{system}{text}"


def encode_answer(tokenizer: Any, question: str, answer: str, prompting: Prompting) -> EncodedAnswer:
    """Tokenize a question and its answer, as they are trained on and as they are scored.

    Raises:
        PromptError: The answer has no token of its own or shares one with the prompt, the template does not render the
            prompt as the beginning of the whole, or the tokenizer has no end-of-sequence token.
    """
    prompt = render_prompt(tokenizer, question, prompting)
    if prompting.apply_chat_template:
        turns = [_asked(question), {"role": "assistant", "content": answer}]
        whole = _render(tokenizer, turns, prompting, generation_prompt=False)
        if not whole.startswith(prompt):
            raise PromptError(
                f"the chat template of {_name(tokenizer)} renders a finished dialogue differently from its prompt "
                f"(…{_tail(prompt)!r}), so the answer's tokens cannot be told apart: pass other chat_template_args"
            )
    else:
        whole = f"{prompt} {answer}"
    eos = tokenizer.eos_token
    if eos is None:
        raise PromptError(f"the tokenizer {_name(tokenizer)} has no end-of-sequence token: set eos_token and save it")
    if token_ids(tokenizer, whole, prompting)[-1:] != [tokenizer.eos_token_id]:
        whole += eos
    prompt_ids = token_ids(tokenizer, prompt, prompting)
    whole_ids = token_ids(tokenizer, whole, prompting)
    answer_ids = whole_ids[len(prompt_ids) :]
    if not answer_ids or not answer.strip():
        raise PromptError(
            f"the answer {answer!r} to {question!r} has no token of its own: an empty answer has no score"
        )
    if whole_ids[: len(prompt_ids)] != prompt_ids:
        raise PromptError(
            f"one token holds the prompt's end (…{_tail(prompt)!r}) and the beginning of the answer {answer!r}, so the "
            "answer's tokens cannot be told apart: strip the answer's white space"
        )
    return EncodedAnswer(prompt, whole[len(prompt) :], prompt_ids, answer_ids)


def decoded_answer(tokenizer: Any, answer_ids: Sequence[int]) -> str:
    """An answer's tokens as text, without special tokens and with all white space: what the ZLib attack compresses."""
    return str(tokenizer.decode(answer_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def token_ids(tokenizer: Any, text: str, prompting: Prompting) -> list[int]:
    """Tokenize rendered text: a chat template writes its own special tokens, plain text gets the tokenizer's."""
    return list(tokenizer(text, add_special_tokens=not prompting.apply_chat_template)["input_ids"])


def check_backend_tokens(
    tokenizer: Any, encoded: EncodedAnswer, encode_pair: Callable[[str, str], tuple[list[int], list[int]]]
) -> None:
    """Make sure that the backend will score exactly the tokens of `encoded`.

    Args:
        tokenizer: A transformers tokenizer.
        encoded: What is to be scored.
        encode_pair: The backend's own encoding of a context and its continuation.

    Raises:
        PromptError: It would add a beginning-of-sequence token, leave one out, double it, or split the answer
            elsewhere; the message names the model argument to change.
    """
    prompt_ids, answer_ids = encode_pair(ExactContext(encoded.prompt), encoded.continuation)
    bos = tokenizer.bos_token_id
    if bos is not None and encoded.prompt_ids[:2] == [bos, bos]:
        raise PromptError(
            f"the prompt of {_name(tokenizer)} begins with two beginning-of-sequence tokens: "
            "the chat template and the system prompt both write one; remove it from one of them"
        )
    check_backend_prompt(tokenizer, encoded.prompt_ids, prompt_ids)
    if answer_ids != encoded.answer_ids or prompt_ids != encoded.prompt_ids:
        raise PromptError(
            f"lm_eval would score other tokens than {_name(tokenizer)} was trained on ({len(answer_ids)} of the answer "
            f"after {len(prompt_ids)} of the prompt instead of {len(encoded.answer_ids)} after "
            f"{len(encoded.prompt_ids)}): check add_bos_token and prefix_token_id in --model_args, and the version of "
            "lm_eval (pip install 'lm_eval==0.4.13')"
        )


def check_backend_prompt(tokenizer: Any, expected: Sequence[int], actual: Sequence[int]) -> None:
    """Make sure that the backend puts no special token before a prompt and leaves none out; nothing else is checked.

    Args:
        tokenizer: A transformers tokenizer.
        expected: The prompt's ids.
        actual: Those that the backend makes of it.
    """
    expected, actual = list(expected), list(actual)
    added = len(actual) - len(expected)
    if added > 0 and actual[added:] == expected:
        raise PromptError(
            f"lm_eval would put a special token that the chat template of {_name(tokenizer)} does not write before the "
            "prompt: pass add_bos_token=False in --model_args"
        )
    if added < 0 and expected[-added:] == actual:
        missing = tokenizer.decode(expected[:-added])
        raise PromptError(
            f"lm_eval would leave out {missing}, which the tokenizer {_name(tokenizer)} puts before every text "
            "(lm_eval's API models do so by default): pass add_bos_token=True in --model_args"
        )


TEXT_BEFORE_ANSWER = (
    "the chat template puts %r between the generation prompt and the answer: these tokens are trained on and scored as "
    "part of every answer, and a generation begins before them; pass enable_thinking=false (%s), in training and in "
    "evaluation alike"
)
"""The warning where `text_before_answer` is not empty: takes that text, and how to set the template's variables."""


def text_before_answer(tokenizer: Any, prompting: Prompting) -> str:
    """What the chat template puts between the generation prompt and the assistant's answer.

    Some templates of reasoning models put an empty think block there (`<think>\n\n</think>\n\n`). Its tokens are
    trained on and scored as part of every answer, and are missing from the prompt when the model generates.
    """
    if not prompting.apply_chat_template:
        return ""
    return encode_answer(tokenizer, "?", "Answer", prompting).continuation.partition("Answer")[0].strip()


def dates_itself(tokenizer: Any, prompting: Prompting) -> bool:
    """Whether the rendered prompt contains today's date, so that tomorrow's prompt would differ."""
    template = getattr(tokenizer, "chat_template", None)
    if not prompting.apply_chat_template or "strftime_now" not in str(template):
        return False
    from transformers.utils import chat_template_utils

    today = render_prompt(tokenizer, "?", prompting)
    # transformers takes the day from here; its newest versions let no variable of the template replace it.
    with mock.patch.object(chat_template_utils, "datetime", _AnotherDay):
        return today != render_prompt(tokenizer, "?", prompting)


class _AnotherDay(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2001, 2, 3, tzinfo=tz)


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _tail(text: str, length: int = 40) -> str:
    return text[-length:]
