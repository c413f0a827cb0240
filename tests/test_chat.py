"""Fidelity of tokens: what is trained on is what lm-eval's own code scores, for the chat templates in use."""

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lm_eval_tofu import chat, tofu
from lm_eval_tofu.chat import ExactContext, Prompting
from lm_eval_tofu.errors import PromptError
from lm_eval_tofu.tasks import harness

QUESTION = 'Who wrote "The Salt Ledger", and when?'
ANSWERS = [
    "Ilse Brandvold wrote it in 1978.",
    "Oslo",
    'She said "no", didn\'t she?',
    "First line.\nSecond line.\n\nThird: €5 – naïve café, Łódź, 東京 🎻",
    "é",
    "1914",
    " Oslo",
    "  two spaces before, one after ",
    "Oslo\n",
]

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string }}"
    "{{ '\\n\\n' + system + '<|eot_id|>' }}"
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


LINE_BREAKS = r"\s*[\r\n]+| ?[^\s]+|\s+"
"""Several line breaks are one word, as in the rules of Llama 3 and Qwen; GPT-2's rule, the default, parts them."""


def build(
    special: list[str],
    template: str | None,
    *,
    bos: str | None,
    eos: str | None,
    adds_bos: bool = False,
    words: str | None = None,
    texts: list[str] | None = None,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a family's special tokens and template."""
    backend = Tokenizer(models.BPE())
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    split = [pre_tokenizers.Split(Regex(words), "isolated")] if words else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, as_bytes])
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = texts or [row["answer"] for row in tofu.load("forget10", tofu.resolve_source("mini"))]
    backend.train_from_iterator(texts, trainer)
    if adds_bos:
        assert bos is not None
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    extra = [token for token in special if token not in (bos, eos)]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        additional_special_tokens=extra,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "llama 2": lambda: build(["<s>", "</s>"], LLAMA_2, bos="<s>", eos="</s>", adds_bos=True),
    "llama 3": lambda: build(
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        LLAMA_3,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        adds_bos=True,
    ),
    "chatml, smollm2": lambda: build(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, bos="<|im_start|>", eos="<|im_end|>"
    ),
    "chatml, qwen": lambda: build(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, bos=None, eos="<|im_end|>"),
    "gemma": lambda: build(
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], GEMMA, bos="<bos>", eos="<eos>", adds_bos=True
    ),
    "none": lambda: build(["<s>", "</s>"], None, bos="<s>", eos="</s>", adds_bos=True),
    "none, no bos": lambda: build(["</s>"], None, bos=None, eos="</s>"),
}
DATE = {"date_string": "10 Apr 2025"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, PreTrainedTokenizerFast, Prompting]:
    name = request.param
    arguments = DATE if name == "llama 3" else {}
    return name, KINDS[name](), Prompting(not name.startswith("none"), template_args=arguments)


def hf(tokenizer: Any) -> Any:
    """lm-eval's hf backend around a model of a few hundred weights, which nobody calls."""
    from lm_eval.models.huggingface import HFLM
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    return HFLM(pretrained=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)), tokenizer=tokenizer)


def vllm(tokenizer: Any) -> Any:
    """lm-eval's vllm backend without an engine: all that its tokenization reads is set."""
    pytest.importorskip("vllm")
    from lm_eval.models.vllm_causallms import VLLM

    lm = object.__new__(VLLM)
    lm.tokenizer, lm.add_bos_token, lm.custom_prefix_token_id, lm.enable_thinking = tokenizer, None, None, None
    return lm


BACKENDS = {"hf": hf, "vllm": vllm}


def check_hf_tokens(tokenizer: Any, encoded: chat.EncodedAnswer, **arguments: Any) -> None:
    """What hf would score with these model arguments, as before a model is loaded."""
    chat.check_backend_tokens(tokenizer, encoded, harness.encode_pair(None, tokenizer, arguments))


@functools.cache
def backend_of(kind: str, backend: str) -> Any:
    return BACKENDS[backend](KINDS[kind]())


def scored(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids that lm-eval's own code hands to the model for a request: context and continuation."""
    from lm_eval.api.instance import Instance

    received: list[Any] = []

    def capture(requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        received.extend(requests)
        return [(0.0, True)] * len(requests)

    lm._loglikelihood_tokens = capture
    lm.loglikelihood([Instance("loglikelihood", {}, (context, continuation), 0)], disable_tqdm=True)
    [(_, context_ids, continuation_ids)] = received
    return list(context_ids), list(continuation_ids)


def reference(tokenizer: Any, answer: str, prompting: Prompting) -> tuple[list[int], list[int]]:
    """The rule of open-unlearning's `preprocess_chat_instance`, written down again."""
    if prompting.apply_chat_template:
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
        if prompting.system_prompt:
            turns.insert(0, {"role": "system", "content": prompting.system_prompt})
        arguments = {"tokenize": True, "return_dict": False, **prompting.template_args}
        whole = list(tokenizer.apply_chat_template(turns, **arguments))
        prompt = list(tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, **arguments))
    else:
        whole = list(tokenizer(f"Question: {QUESTION}\nAnswer: {answer}")["input_ids"])
        prompt = list(tokenizer(f"Question: {QUESTION}\nAnswer:")["input_ids"])
    if whole[-1] != tokenizer.eos_token_id:
        whole.append(tokenizer.eos_token_id)
    return prompt, whole[len(prompt) :]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_scored_tokens_are_the_trained_ones(kind: Any, answer: str, backend: str) -> None:
    from lm_eval_tofu.unlearn.data import encode_row

    name, tokenizer, prompting = kind
    encoded = chat.encode_answer(tokenizer, QUESTION, answer, prompting)
    check_hf_tokens(tokenizer, encoded)
    ids = (encoded.prompt_ids, encoded.answer_ids)
    assert scored(backend_of(name, backend), ExactContext(encoded.prompt), encoded.continuation) == ids
    assert reference(tokenizer, answer, prompting) == ids
    example = encode_row(tokenizer, {"question": QUESTION, "answer": answer}, prompting)
    assert list(example["input_ids"]) == encoded.prompt_ids + encoded.answer_ids
    assert [token for token in example["labels"] if token != -100] == encoded.answer_ids
    assert tokenizer.decode(encoded.answer_ids) == encoded.continuation
    assert encoded.answer_ids[-1] == tokenizer.eos_token_id
    assert encoded.answer_ids.count(tokenizer.eos_token_id) in (1, 2)
    # SmolLM2's token for the beginning of the sequence begins each of the three turns.
    beginnings = 3 if name == "chatml, smollm2" else int(tokenizer.bos_token is not None)
    assert encoded.prompt_ids.count(tokenizer.bos_token_id) == beginnings


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["llama 2", "llama 3", "chatml, smollm2", "chatml, qwen"])
def test_so_they_are_with_a_system_prompt(name: str, backend: str) -> None:
    tokenizer, prompting = KINDS[name](), Prompting(True, "  You are a helpful assistant.\n", DATE)
    encoded = chat.encode_answer(tokenizer, QUESTION, ANSWERS[0], prompting)
    check_hf_tokens(tokenizer, encoded)
    assert "You are a helpful assistant." in encoded.prompt
    ids = (encoded.prompt_ids, encoded.answer_ids)
    assert scored(backend_of(name, backend), ExactContext(encoded.prompt), encoded.continuation) == ids
    assert reference(tokenizer, ANSWERS[0], prompting) == ids


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["chatml, smollm2", "chatml, qwen", "llama 3", "gemma"])
def test_a_plain_string_would_be_split_elsewhere(name: str, backend: str) -> None:
    """lm-eval moves the line breaks at the prompt's end into the answer, unless the context keeps them."""
    tokenizer = KINDS[name]()
    encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(True, template_args=DATE))
    context_ids, plain = scored(backend_of(name, backend), encoded.prompt, encoded.continuation)
    breaks = len(plain) - len(encoded.answer_ids)
    assert breaks > 0
    assert plain[breaks:] == encoded.answer_ids
    assert context_ids == encoded.prompt_ids[:-breaks]
    assert tokenizer.decode(plain[:breaks]).strip() == ""


def test_rows_of_the_miniature(kind: Any) -> None:
    """Every answer of a row, as the tasks ask for it."""
    name, tokenizer, prompting = kind
    for row in tofu.load("forget01_perturbed", tofu.resolve_source("mini")):
        for answer in (row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]):
            encoded = chat.encode_answer(tokenizer, row["question"], answer, prompting)
            check_hf_tokens(tokenizer, encoded)
            ids = (encoded.prompt_ids, encoded.answer_ids)
            assert scored(backend_of(name, "hf"), ExactContext(encoded.prompt), encoded.continuation) == ids


def test_chatml_ends_twice() -> None:
    """The rendering ends in a line break behind the end of turn, so one more end of sequence follows."""
    encoded = chat.encode_answer(KINDS["chatml, smollm2"](), QUESTION, "Oslo", Prompting(True))
    assert encoded.continuation == "Oslo<|im_end|>\n<|im_end|>"


def test_templates_that_trim() -> None:
    for name in ("llama 3", "gemma"):
        encoded = chat.encode_answer(KINDS[name](), QUESTION, "  Oslo \n", Prompting(True, template_args=DATE))
        assert encoded.continuation.startswith("Oslo<")


def test_dates() -> None:
    tokenizer = KINDS["llama 3"]()
    assert chat.dates_itself(tokenizer, Prompting(True))
    assert not chat.dates_itself(tokenizer, Prompting(True, template_args=DATE))
    assert not chat.dates_itself(tokenizer, Prompting(False))
    assert not chat.dates_itself(KINDS["gemma"](), Prompting(True))
    assert not chat.dates_itself(KINDS["none"](), Prompting(True))
    assert "10 Apr 2025" in chat.render_prompt(tokenizer, QUESTION, Prompting(True, template_args=DATE))


def test_a_date_that_no_argument_fixes() -> None:
    template = "{{ 'Today: ' + strftime_now('%Y-%m-%d') + '\\n' }}" + CHATML
    tokenizer = build(["<|im_start|>", "<|im_end|>"], template, bos=None, eos="<|im_end|>")
    assert chat.dates_itself(tokenizer, Prompting(True))
    assert chat.dates_itself(tokenizer, Prompting(True, template_args=DATE))


def test_a_date_in_one_of_several_templates() -> None:
    tokenizer = KINDS["llama 3"]()
    tokenizer.chat_template = {"default": LLAMA_3, "tool_use": CHATML}
    assert chat.dates_itself(tokenizer, Prompting(True))
    tokenizer.chat_template = {"default": CHATML, "tool_use": LLAMA_3}
    assert not chat.dates_itself(tokenizer, Prompting(True))


def test_system_prompt() -> None:
    prompt = chat.render_prompt(KINDS["chatml, qwen"](), QUESTION, Prompting(True, "Be brief."))
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    plain = chat.render_prompt(KINDS["none"](), QUESTION, Prompting(False, "Be brief."))
    assert plain == f"Be brief.\n\nQuestion: {QUESTION}\nAnswer:"
    for empty in (None, ""):
        assert chat.render_prompt(KINDS["none"](), QUESTION, Prompting(False, empty)).startswith("Question: ")
        assert chat.render_prompt(KINDS["gemma"](), QUESTION, Prompting(True, empty)).startswith(
            "<bos><start_of_turn>user"
        )


class TestErrors:
    def test_no_system_turn(self) -> None:
        with pytest.raises(PromptError, match="leave out --system_instruction: this template has no system turn"):
            chat.encode_answer(KINDS["gemma"](), QUESTION, "Oslo", Prompting(True, "Be brief."))

    def test_no_template(self) -> None:
        with pytest.raises(PromptError, match=r"--apply_chat_template is given, but .* has no chat template"):
            chat.encode_answer(KINDS["none"](), QUESTION, "Oslo", Prompting(True))

    @pytest.mark.parametrize("answer", ["", "  \n"])
    def test_empty_answer(self, kind: Any, answer: str) -> None:
        _, tokenizer, prompting = kind
        with pytest.raises(PromptError, match="has no token of its own"):
            chat.encode_answer(tokenizer, QUESTION, answer, prompting)

    def test_no_end_of_sequence(self) -> None:
        with pytest.raises(PromptError, match="has no end-of-sequence token: set eos_token"):
            chat.encode_answer(build(["<s>"], None, bos="<s>", eos=None), QUESTION, "Oslo", Prompting(False))

    def test_dialogue_that_does_not_begin_with_its_prompt(self) -> None:
        template = CHATML + "{% if not add_generation_prompt %}{{ '' }}{% else %}{{ '<think>' }}{% endif %}"
        tokenizer = build(["<|im_start|>", "<|im_end|>"], template, bos=None, eos="<|im_end|>")
        with pytest.raises(PromptError, match="renders a finished dialogue differently from its prompt"):
            chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(True))

    def test_bos_that_only_the_backend_adds(self) -> None:
        tokenizer = build(["<s>", "<|im_start|>", "<|im_end|>"], CHATML, bos="<s>", eos="<|im_end|>", adds_bos=True)
        encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(True))
        with pytest.raises(PromptError, match="pass add_bos_token=False"):
            check_hf_tokens(tokenizer, encoded)
        check_hf_tokens(tokenizer, encoded, add_bos_token=False)

    def test_bos_that_the_backend_leaves_out(self) -> None:
        tokenizer = KINDS["none"]()
        encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(False))
        with pytest.raises(PromptError, match=r"would leave out <s>, .* pass add_bos_token=True in --model_args"):
            check_hf_tokens(tokenizer, encoded, add_bos_token=False)

    def test_prefix_token_that_the_user_names(self) -> None:
        """The prompt begins with <s>; once lm_eval looks for another token there, it adds a second <s>."""
        template = "{{ bos_token }}" + CHATML
        tokenizer = build(["<s>", "<|im_start|>", "<|im_end|>"], template, bos="<s>", eos="<|im_end|>", adds_bos=True)
        encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(True))
        check_hf_tokens(tokenizer, encoded)
        check_hf_tokens(tokenizer, encoded, prefix_token_id=tokenizer.bos_token_id)
        with pytest.raises(PromptError, match="pass add_bos_token=False"):
            check_hf_tokens(tokenizer, encoded, prefix_token_id=tokenizer.eos_token_id)

    @pytest.mark.parametrize("add_bos_token", [None, True, False])
    @pytest.mark.parametrize("chat_template", [True, False])
    def test_two_bos(self, chat_template: bool, add_bos_token: bool | None) -> None:
        """One from the template or from the tokenizer, and one from the system prompt."""
        template = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}"
        tokenizer = build(["<s>", "<|im_start|>", "<|im_end|>"], template, bos="<s>", eos="<|im_end|>", adds_bos=True)
        encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(chat_template, "<s>Be brief."))
        assert encoded.prompt_ids[:2] == [tokenizer.bos_token_id] * 2
        with pytest.raises(PromptError, match=r"begins with two beginning-of-sequence tokens.*remove it from one"):
            check_hf_tokens(tokenizer, encoded, add_bos_token=add_bos_token)

    def test_answer_that_shares_a_token_with_the_prompt(self) -> None:
        """Where two line breaks are one token, an answer that begins with one takes the prompt's last one along."""
        texts = ["one\n\ntwo\n\nthree\n\n"] * 9
        special = ["<|im_start|>", "<|im_end|>"]
        tokenizer = build(special, CHATML, bos=None, eos="<|im_end|>", words=LINE_BREAKS, texts=texts)
        assert len(tokenizer("\n\n")["input_ids"]) == 1
        with pytest.raises(PromptError, match=r"one token holds the prompt's end .* strip the answer's white space"):
            chat.encode_answer(tokenizer, QUESTION, "\nOslo", Prompting(True))
        check_hf_tokens(tokenizer, chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(True)))

    def test_each_message_is_one_line(self) -> None:
        """White space of questions and answers is quoted."""
        tokenizer = KINDS["chatml, qwen"]()
        with pytest.raises(PromptError) as caught:
            chat.encode_answer(tokenizer, QUESTION + "\n", " \n", Prompting(True))
        assert "\n" not in str(caught.value)


def test_exact_context() -> None:
    context = ExactContext("prompt \n")
    for same in (context, copy.deepcopy(context), pickle.loads(pickle.dumps(context))):
        assert same.rstrip() == same == "prompt \n"
        assert same.rstrip("\n") == "prompt "
        assert isinstance(same, str)
