"""Options as dataclass fields: help, spellings, switches, and the trainer's own beside them."""

import dataclasses
from pathlib import Path

import pytest

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import options
from lm_eval_tofu.unlearn.finetune import FinetuneConfig
from lm_eval_tofu.unlearn.unlearning import UnlearnConfig

GIVEN = {"model": "M", "forget-split": "forget01", "output": "O"}


def config(**given: object) -> UnlearnConfig:
    return options.from_mapping(UnlearnConfig, {**GIVEN, **given}, "test")


@pytest.mark.parametrize("config_class", [FinetuneConfig, UnlearnConfig])
def test_every_field_is_an_option_with_help(config_class: type) -> None:
    described = {each.name: metadata["help"] for each, metadata in options._options(config_class)}
    assert described.keys() == {each.name for each in dataclasses.fields(config_class)} - {"training"}
    assert all(described.values())


def test_every_spelling_is_understood_by_the_parser() -> None:
    """Both are made of the same fields; these say the same in another way, with the value that is not the default."""
    for name, field in options.spellings(UnlearnConfig).items():
        given = "false" if field in ("apply_chat_template", "lora_merge", "precompute_reference") else "3"
        given = "true" if field in ("overwrite", "joint_pass") or name.startswith("no") else given
        given = "{}" if field == "template_args" else given
        values = {key: value for key, value in GIVEN.items() if options.spellings(UnlearnConfig)[key] != field}
        made = options.from_mapping(UnlearnConfig, {"model": "M", **values, name: given}, "test")
        assert not made.training, name
        assert getattr(made, field) in (False, True, "3", 3, (3,), {}, Path("3")), name


def test_switches() -> None:
    assert config().apply_chat_template
    assert not config(no_chat_template=True).apply_chat_template
    assert not config(**{"apply-chat-template": False}).apply_chat_template
    assert config(**{"no-lora-merge": False}).lora_merge
    assert not config(no_precompute_reference=True).precompute_reference
    assert config(**{"joint-pass": True}).joint_pass is True
    with pytest.raises(OptionError, match="test: argument --overwrite: 'maybe' is neither true nor false"):
        config(overwrite="maybe")


def test_the_trainers_options() -> None:
    made = config(adam_beta2=0.95, **{"no-use_cache": None, "gradient-checkpointing": True})
    assert made.training == {"adam_beta2": 0.95, "gradient_checkpointing": True}
    with pytest.raises(OptionError, match="training: do_train is not passed on: it has no use here: leave it out"):
        config(do_train=True).check()


def test_training_options_of_other_commands() -> None:
    assert options.parsed_training("--training", {"adam_beta2": "0.95"}) == {"adam_beta2": 0.95}
    with pytest.raises(OptionError, match="--training: adam_beta3 is no option: did you mean adam_beta"):
        options.parsed_training("--training", {"adam_beta3": 1})
    with pytest.raises(OptionError, match=r"--training: argument --adam_beta2.*: invalid float value: 'x'"):
        options.parsed_training("--training", {"adam_beta2": "x"})


@pytest.mark.parametrize(
    ("missing", "message"), [("model", "required: --model$"), ("output", "--output/--output-dir/--output_dir")]
)
def test_required_options(missing: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options.from_mapping(UnlearnConfig, {name: value for name, value in GIVEN.items() if name != missing}, "test")
