"""Fidelity of tokens: what is trained on is what lm-eval's own code scores, for the chat templates in use."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lm_eval_tofu import chat, tofu
from lm_eval_tofu.chat import EncodedAnswer, ExactContext, Prompting
from lm_eval_tofu.errors import PromptError

QUESTION = "Who wrote «The Salt Ledger», and when?"
ANSWERS = [
    "Ilse Brandvold wrote it in 1978.",
    "Oslo",
    'She said "no", didn\'t she?',
    "First line.\nSecond line.\n\nThird: €5 – naïve café, Łódź, 東京 🎻",
    "é",
    "1914",
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


def build(
    special: list[str], template: str | None, *, bos: str | None, eos: str | None, adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a family's special tokens and template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = [row["answer"] for row in tofu.load("forget10", tofu.resolve_source("mini"))]
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


def scored(tokenizer: Any, context: str, continuation: str, backend: str) -> tuple[list[int], list[int]]:
    """What lm-eval's own code makes of a request: its splitting, and its hf or vllm backend's tokenization."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.vllm_causallms import VLLM

    bos = tokenizer.bos_token_id
    lm = SimpleNamespace(
        tokenizer=tokenizer,
        add_bos_token=None,
        backend="causal",
        prefix_token_id=bos if bos is not None else tokenizer.eos_token_id,
    )
    encode = HFLM.tok_encode if backend == "hf" else VLLM.tok_encode
    lm.tok_encode = lambda text, **kwargs: encode(lm, text, **kwargs)
    prompt_ids, answer_ids = TemplateLM._encode_pair(lm, context, continuation)
    return list(prompt_ids), list(answer_ids)


def reference(tokenizer: Any, answer: str, prompting: Prompting) -> tuple[list[int], list[int]]:
    """The rule of open-unlearning's `preprocess_chat_instance`, written down again."""
    if prompting.apply_chat_template:
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
        arguments = {"tokenize": True, "return_dict": False, **prompting.template_args}
        whole = list(tokenizer.apply_chat_template(turns, **arguments))
        prompt = list(tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, **arguments))
    else:
        whole = list(tokenizer(f"Question: {QUESTION}\nAnswer: {answer}")["input_ids"])
        prompt = list(tokenizer(f"Question: {QUESTION}\nAnswer:")["input_ids"])
    if whole[-1] != tokenizer.eos_token_id:
        whole.append(tokenizer.eos_token_id)
    return prompt, whole[len(prompt) :]


@pytest.mark.parametrize("backend", ["hf", "vllm"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_scored_tokens_are_the_trained_ones(kind: Any, answer: str, backend: str) -> None:
    from lm_eval_tofu.unlearn.data import encode_row

    if backend == "vllm":
        pytest.importorskip("vllm")
    _, tokenizer, prompting = kind
    encoded = chat.encode_answer(tokenizer, QUESTION, answer, prompting)
    chat.check_backend_tokens(tokenizer, encoded)
    ids = (encoded.prompt_ids, encoded.answer_ids)
    assert scored(tokenizer, ExactContext(encoded.prompt), encoded.continuation, backend) == ids
    assert reference(tokenizer, answer, prompting) == ids
    example = encode_row(tokenizer, {"question": QUESTION, "answer": answer}, prompting)
    assert list(example["input_ids"]) == encoded.prompt_ids + encoded.answer_ids
    assert [token for token in example["labels"] if token != -100] == encoded.answer_ids
    assert encoded.answer_ids[-1] == tokenizer.eos_token_id
    assert encoded.answer_ids.count(tokenizer.eos_token_id) in (1, 2)


def test_a_plain_string_would_be_split_elsewhere() -> None:
    """lm-eval moves the line break at the prompt's end into the answer, unless the context keeps it."""
    tokenizer, prompting = KINDS["chatml, smollm2"](), Prompting(True)
    encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", prompting)
    _, plain = scored(tokenizer, encoded.prompt, encoded.continuation, "hf")
    assert plain != encoded.answer_ids
    assert plain[1:] == encoded.answer_ids


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
    assert "10 Apr 2025" in chat.render_prompt(tokenizer, QUESTION, Prompting(True, template_args=DATE))


def test_system_prompt() -> None:
    prompt = chat.render_prompt(KINDS["chatml, qwen"](), QUESTION, Prompting(True, "Be brief."))
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    plain = chat.render_prompt(KINDS["none"](), QUESTION, Prompting(False, "Be brief."))
    assert plain == f"Be brief.\n\nQuestion: {QUESTION}\nAnswer:"


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
            chat.check_backend_tokens(tokenizer, encoded)
        chat.check_backend_tokens(tokenizer, encoded, add_bos_token=False)

    def test_bos_that_the_backend_leaves_out(self) -> None:
        tokenizer = KINDS["none"]()
        encoded = chat.encode_answer(tokenizer, QUESTION, "Oslo", Prompting(False))
        with pytest.raises(PromptError, match=r"other tokens than .* was trained on .*check add_bos_token"):
            chat.check_backend_tokens(tokenizer, encoded, add_bos_token=False)

    def test_two_bos(self) -> None:
        tokenizer = KINDS["gemma"]()
        bos = tokenizer.bos_token_id
        twice = EncodedAnswer("<bos><bos>?", "!", [bos, bos, 5], [6])
        with pytest.raises(PromptError, match="begins with two beginning-of-sequence tokens"):
            chat.check_backend_tokens(tokenizer, twice)


def test_exact_context() -> None:
    context = ExactContext("prompt \n")
    assert context.rstrip() == "prompt \n"
    assert context.rstrip("\n") == "prompt "
    assert isinstance(context, str)
