"""The record of a run's settings, the comparison of two records."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from lm_eval_tofu import arm
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError

SETTINGS = ArmSettings(
    model="models/a",
    weights="files:1111",
    backend="hf",
    weights_dtype="float32",
    checkpoint_dtype="float32",
    softmax_dtype="float32",
    batch_size="16",
    chat_template="abc",
    chat_template_args={"date_string": "1 May"},
    special_tokens={"bos": None, "eos": "<|im_end|>", "pad": "<|pad|>", "ends_generation": [2]},
    tokens="t1",
    scored_tokens=700,
    documents=40,
    task="tofu_novel_recall",
    version=2,
    data="mini",
    data_fingerprint="d1",
    options={
        "forget_split": "forget10",
        "families": ["direct"],
        "best_of_n": 32,
        "best_of_n_temperature": 1.0,
        "best_of_n_top_p": 1.0,
        "truth_ratio_eps": 1e-10,
        "forget_rows": None,
    },
    generation={"do_sample": False, "max_gen_toks": 200, "until": ["<|im_end|>"]},
    versions={"lm-eval": "0.4.13", "transformers": "5.19.0"},
)


def changed(**changes: Any) -> ArmSettings:
    """`SETTINGS` of another model with other settings; a mapping is merged into the one that is there."""
    merged = {
        name: {**getattr(SETTINGS, name), **value} if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(SETTINGS, **{"model": "models/b", "weights": "files:2222", **merged})


PAIRS: list[tuple[str, dict[str, Any], str, str, str]] = [
    # what differs, how, between arms, against a reference, words of the message
    ("dtype", {"weights_dtype": "bfloat16"}, "warned", "warned", "dtype differs (float32; bfloat16), set by dtype in"),
    ("softmax", {"softmax_dtype": "bfloat16"}, "warned", "warned", "softmax dtype differs (float32; bfloat16)"),
    ("backend", {"backend": "vllm"}, "warned", "warned", "backend differs (hf; vllm), set by --model"),
    (
        "version of a library",
        {"versions": {"transformers": "4.57.0"}},
        "warned",
        "warned",
        "transformers version differ",
    ),
    ("quantization", {"quantization": "bitsandbytes (4 bits)"}, "warned", "warned", "quantization differs (none; bits"),
    ("batch size", {"batch_size": "1"}, "warned", "equal", "batch size differs (16; 1), set by --batch_size"),
    ("template", {"chat_template": None}, "warned", "equal", "chat template differs (abc; none), set by --apply_chat"),
    (
        "date",
        {"chat_template_args": {"date_string": "2 May"}},
        "warned",
        "equal",
        "argument date_string differs (1 May",
    ),
    (
        "thinking",
        {"chat_template_args": {"enable_thinking": False}},
        "warned",
        "equal",
        "enable_thinking differs (none;",
    ),
    ("system prompt", {"system_prompt": "Be brief."}, "warned", "equal", "system prompt differs (none; Be brief.)"),
    ("end of turn", {"special_tokens": {"eos": "<|pad|>"}}, "warned", "equal", "special token eos differs (<|im_end|>"),
    ("padding", {"special_tokens": {"pad": "<|im_end|>"}}, "equal", "equal", "padding token differs"),
    (
        "eos of the checkpoint",
        {"special_tokens": {"ends_generation": [2, 5]}},
        "warned",
        "equal",
        "end-of-generation tokens differ",
    ),
    ("scored tokens", {"scored_tokens": 800, "tokens": "t2"}, "warned", "refused", "scored tokens differ (700; 800)"),
    ("token ids", {"tokens": "t2"}, "warned", "refused", "token ids differ (t1; t2)"),
    ("rows", {"data_fingerprint": "d2"}, "refused", "refused", "rows differ (d1; d2), set by tofu in --metadata"),
    (
        "split",
        {"options": {"forget_split": "forget05"}},
        "refused",
        "refused",
        "forget split differs (forget10; forget05",
    ),
    ("chosen rows", {"options": {"forget_rows": [0, 1]}}, "refused", "refused", "chosen rows differ (none; 0, 1)"),
    ("families", {"options": {"families": ["cloze"]}}, "refused", "equal", "families differ (direct; cloze)"),
    (
        "samples",
        {"options": {"best_of_n": 8}},
        "refused",
        "equal",
        "best_of_n differs (32; 8), set by best_of_n in --metadata",
    ),
    (
        "temperature",
        {"options": {"best_of_n_temperature": 0.7}},
        "refused",
        "equal",
        "best_of_n_temperature differs (1.0; 0.7), set by",
    ),
    ("nucleus", {"options": {"best_of_n_top_p": 0.9}}, "refused", "equal", "best_of_n_top_p differs (1.0; 0.9)"),
    ("sampled prompts", {"options": {"best_of_n_prompts": "cloze"}}, "refused", "equal", "best_of_n_prompts differ ("),
    ("formats", {"options": {"formats": ["json"]}}, "refused", "equal", "formats differ (none; json)"),
    ("epsilon", {"options": {"truth_ratio_eps": 0.1}}, "refused", "equal", "epsilon of the truth ratio differs"),
    (
        "an option without a rule of its own",
        {"options": {"another": 1}},
        "refused",
        "equal",
        "option another differs (none; 1), set by --metadata",
    ),
    (
        "limit",
        {"generation": {"max_gen_toks": 8}},
        "refused",
        "equal",
        "token limit differs (200; 8), set by max_gen_toks in --gen_kwargs",
    ),
    ("stop strings", {"generation": {"until": ["\n"]}}, "warned", "equal", "decoding until differs (<|im_end|>;"),
    ("sampling", {"generation": {"do_sample": True}}, "warned", "equal", "decoding do_sample differs (False; True)"),
    ("a server's defaults", {"pinned": False}, "warned", "equal", "decoding that the task sets itself differs"),
    ("task version", {"version": 3}, "refused", "refused", "task version differs (2; 3)"),
    ("end of thinking", {"think_end_token": "</think>"}, "warned", "equal", "think_end_token differs (none; </think>)"),
]
"""Pairs of arms that differ in one setting each, besides being two models."""


@pytest.mark.parametrize(
    ("changes", "arms", "reference", "words"), [pair[1:] for pair in PAIRS], ids=[p[0] for p in PAIRS]
)
def test_pairs_that_differ_in_one_setting(changes: dict[str, Any], arms: str, reference: str, words: str) -> None:
    for purpose, severity in (("arms", arms), ("reference", reference)):
        found = [
            each
            for each in arm.compare(SETTINGS, changed(**changes), purpose)
            if each.field not in ("model", "weights")
        ]
        assert [each.severity for each in found] == [severity]
        assert words in found[0].message
        assert [
            each.values for each in arm.compare(changed(**changes), SETTINGS, purpose) if each.field == found[0].field
        ] == [found[0].values[::-1]]


def test_two_models_alike_in_everything_else_are_comparable() -> None:
    for purpose in ("arms", "reference"):
        assert {each.severity for each in arm.compare(SETTINGS, changed(), purpose)} == {"equal"}
    assert arm.compare(SETTINGS, SETTINGS, "arms") == []


@pytest.mark.parametrize(
    "name", ["weights_dtype", "softmax_dtype", "batch_size", "tokens", "scored_tokens", "data_fingerprint", "weights"]
)
def test_what_is_not_known_is_not_compared(name: str) -> None:
    other = changed(**{name: None})
    for purpose in ("arms", "reference", "runs"):
        assert name not in {each.field for each in arm.compare(SETTINGS, other, purpose)}


def test_a_backend_that_was_not_there_yet_is_not_compared() -> None:
    other = changed(backend=arm.UNKNOWN_BACKEND)
    assert "backend" not in {each.field for each in arm.compare(SETTINGS, other, "reference")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subfolder": "full"}, "subfolder: none, full"),
        ({"revision": "epoch-2"}, "revision: none, epoch-2"),
        ({"adapter": "peft=ad"}, "adapter: none, peft=ad"),
        ({"adapter": "lora_local_path=ad"}, "adapter: none, lora_local_path=ad"),
        ({"gguf_file": "q4.gguf"}, "GGUF file: none, q4.gguf"),
        ({"delta": "d"}, "delta weights: none, d"),
        ({"model": "models/c"}, "model: models/a, models/c"),
    ],
)
def test_runs_of_several_models_are_told_apart(changes: dict[str, Any], words: str) -> None:
    """By their arguments where the weights cannot be read, by their weights where they can."""
    unknown = dataclasses.replace(SETTINGS, weights=None)
    other = dataclasses.replace(unknown, **changes)
    with pytest.raises(OptionError, match="holds results of several models") as caught:
        arm.refuse_unless_same_model("retain_reference='r'", [("1.json", unknown), ("2.json", other)])
    assert words in str(caught.value)
    assert other.name in str(caught.value)
    # The same weights under another name are the same model; other weights under the same name are not.
    arm.refuse_unless_same_model("r", [("1", SETTINGS), ("2", dataclasses.replace(SETTINGS, **changes))])
    with pytest.raises(OptionError, match="weights: files:1111, files:3333"):
        arm.refuse_unless_same_model("r", [("1", SETTINGS), ("2", dataclasses.replace(SETTINGS, weights="files:3333"))])


def test_fingerprints_of_two_kinds_are_not_compared() -> None:
    loaded = dataclasses.replace(SETTINGS, weights="loaded:9999")
    assert not arm.has_same_weights(SETTINGS, loaded)
    assert arm.compare(SETTINGS, loaded, "runs") == []
    assert arm.has_same_weights(SETTINGS, dataclasses.replace(SETTINGS, model="b"))
    assert not arm.has_same_weights(*[dataclasses.replace(SETTINGS, weights=None)] * 2)


def test_another_number_of_documents_leaves_token_fingerprints_out() -> None:
    part = changed(documents=4, tokens="t9", scored_tokens=70)
    assert not {"tokens", "scored_tokens"} & {each.field for each in arm.compare(SETTINGS, part, "reference")}


def test_names_say_what_was_loaded() -> None:
    assert changed(model="m").name == "m"
    assert changed(model="models/full", adapter="peft=ad").name == "models/full + peft=ad"
    assert changed(model="m", revision="v2", subfolder="s").name == "m @ v2 + subfolder=s"
    assert changed(model="m", revision="main").name == "m"
    assert changed(model="m", subfolder="s").checkpoint == Path("m/s")
    assert changed(model="m", adapter="peft=a/d").checkpoint == Path("a/d")


def test_decoding_in_words() -> None:
    assert SETTINGS.decoding == "greedy, at most 200 tokens, until '<|im_end|>'"
    sampled = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "n": 8, "max_gen_toks": 20, "until": []}
    assert dataclasses.replace(SETTINGS, generation=sampled).decoding == (
        "8 samples at temperature 0.7, top_p 0.9, at most 20 tokens"
    )
    assert "may differ" in changed(pinned=False).decoding


def test_a_record_survives_json() -> None:
    record = json.loads(json.dumps(SETTINGS.to_record()))
    assert ArmSettings.from_record(record) == SETTINGS
    for broken in (
        None,
        {},
        {**record, "format": 0},
        {**record, "more": 1},
        {k: v for k, v in record.items() if k != "model"},
    ):
        assert ArmSettings.from_record(broken) is None


def test_every_field_has_a_rule() -> None:
    ruled = [name for name, rule in arm.RULES.items() if not rule.key]
    assert ruled == [field.name for field in dataclasses.fields(ArmSettings)]


def test_the_documents_table_is_the_one_of_the_rules() -> None:
    assert arm.table() in (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")


def test_needs_neither_torch_nor_lm_eval() -> None:
    heavy = "('torch', 'lm_eval', 'transformers')"
    code = f"import sys, lm_eval_tofu.arm; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
