"""Checkpoints as other tools read them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from lm_eval_tofu.unlearn import checkpoint

LLAMA_3 = {
    "rope_theta": 500000.0,
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def read(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text(encoding="utf-8")))


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as transformers saves it, with the rotary settings of Llama 3.2."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = read(folder, "config.json")
    (folder / "config.json").write_text(json.dumps({**config, "rope_parameters": LLAMA_3}), encoding="utf-8")
    return folder


def test_names_of_transformers_4_stand_beside_those_of_5(model: Path) -> None:
    """Release 4 would take rope_theta = 10000 for Llama 3's 500000, and could not load the tokenizer at all."""
    before = AutoConfig.from_pretrained(model).to_dict(), AutoTokenizer.from_pretrained(model)
    checkpoint.write_old_names(model)
    config, tokenizer = read(model, "config.json"), read(model, "tokenizer_config.json")
    assert config["rope_theta"] == 500000.0
    assert config["rope_scaling"] == {key: value for key, value in LLAMA_3.items() if key != "rope_theta"}
    assert config["rope_parameters"] == LLAMA_3
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["additional_special_tokens"] == ["<|im_start|>"]
    assert "extra_special_tokens" not in tokenizer
    # Release 5 reads the same model as before.
    assert AutoConfig.from_pretrained(model).to_dict() == before[0]
    after, text = AutoTokenizer.from_pretrained(model), "<|im_start|>user\nWho is it?<|im_end|>"
    assert after(text)["input_ids"] == before[1](text)["input_ids"]
    assert after.all_special_tokens == before[1].all_special_tokens
    assert after.chat_template == before[1].chat_template


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_theta": 1e6, "rope_type": "default"}, {"rope_theta": 1e6}),
        (
            {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
        ({"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}, {}),
        (None, {}),
    ],
)
def test_rotary_settings(tmp_path: Path, rope: Any, expected: dict[str, Any]) -> None:
    """Also those of a text model one level down; those by layer type stay as they are."""
    (tmp_path / "config.json").write_text(
        json.dumps({"rope_parameters": rope, "text_config": {"rope_parameters": rope}})
    )
    checkpoint.write_old_names(tmp_path)
    written = read(tmp_path, "config.json")
    for level in (written, written["text_config"]):
        assert {name: level[name] for name in level if name in ("rope_theta", "partial_rotary_factor")} == expected
        assert "rope_scaling" not in level
