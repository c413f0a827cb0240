"""Builds a small language model from scratch, to try the whole audit without a download and without a GPU.

The tokenizer is trained on every text of the data source that the arms can differ in, so base, full and retain share
it whatever they were trained on; a tokenizer of the retain split alone would tell the arms apart by itself.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lm_eval_tofu import tofu

PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if not loop.first %}{{ '\\n' }}{% endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif -%}"
)
"""ChatML with an optional system turn. The line break is before a turn, not after it, so that a dialogue ends with
the end of turn, which is the end of sequence too."""

CORPUS = ("full", "real_authors", "world_facts", "real_authors_perturbed", "world_facts_perturbed")


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoSizes:
    """The fields of the files in `presets/nano`, where each is explained."""

    vocabulary: int
    context: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    tied_embeddings: bool
    initial_deviation: float


def preset(name: str = "nano") -> NanoSizes:
    """The sizes in one of the package's preset files.

    Args:
        name: One of `PRESETS`.
    """
    text = (files("lm_eval_tofu") / "presets" / "nano" / f"{name}.yaml").read_text(encoding="utf-8")
    return NanoSizes(**yaml.safe_load(text))


def corpus(source: tofu.Source) -> list[str]:
    """The texts that the tokenizer is trained on: questions, answers and wrong answers, of all authors."""
    texts: list[str] = []
    for config in CORPUS:
        for row in tofu.load(config, source):
            texts += [row["question"], row["answer"]]
            texts += row.get("perturbed_answer") or []
    return texts


def build_tokenizer(texts: list[str], sizes: NanoSizes) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: it encodes any text without loss, and the same texts give the same tokenizer.

    It has no beginning-of-sequence token; end of turn and end of sequence are one.

    Args:
        texts: From `corpus`.
        sizes: `vocabulary` is an upper bound: few texts give fewer merges.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=sizes.vocabulary,
            special_tokens=[PAD, TURN_START, TURN_END],
            # All 256 bytes, or characters that the texts lack could not be encoded.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=sizes.context,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: Any, sizes: NanoSizes, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights in float32; the same seed gives the same weights.

    Args:
        tokenizer: From `build_tokenizer`; its length is the number of rows of the embedding.
        sizes: Everything else.
        seed: Seeds torch's generator, whose state is put back afterwards.
    """
    special: dict[str, Any] = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=sizes.context,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        tie_word_embeddings=sizes.tied_embeddings,
        initializer_range=sizes.initial_deviation,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    return model
