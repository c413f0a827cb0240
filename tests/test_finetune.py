"""Fine-tuning on the miniature, with models small enough for a test."""

import json
import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import filelock
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from lm_eval_tofu import tofu
from lm_eval_tofu.chat import Prompting, check_backend_tokens, encode_answer
from lm_eval_tofu.errors import OptionError, PromptError, TofuError
from lm_eval_tofu.tasks import harness
from lm_eval_tofu.unlearn import checkpoint, finetune, nano
from lm_eval_tofu.unlearn.data import IGNORED, AnswerCollator, encode_rows
from lm_eval_tofu.unlearn.finetune import FinetuneConfig
from lm_eval_tofu.unlearn.training import effective_batch, training_arguments

CHAT = Prompting(apply_chat_template=True)
TINY = nano.NanoSizes(
    vocabulary=512,
    context=512,
    hidden=32,
    feed_forward=64,
    layers=2,
    heads=1,
    key_value_heads=1,
    tied_embeddings=True,
    initial_deviation=0.02,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """`--from-scratch nano` builds a tiny model; the hub is out of reach."""
    monkeypatch.setattr(nano, "preset", lambda name="nano": TINY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def tokenizer():
    return nano.build_tokenizer(nano.corpus(tofu.resolve_source("mini")), TINY)


@pytest.fixture
def config(tmp_path):
    """20 rows in 3 steps an epoch."""
    return FinetuneConfig(
        from_scratch="nano",
        split="forget05",
        tofu="mini",
        output=tmp_path / "model",
        epochs=3,
        learning_rate=3e-3,
        batch_size=4,
        gradient_accumulation=2,
        warmup=1,
    )


def weights(folder):
    return load_file(folder / "model.safetensors")


class Interrupt(TrainerCallback):
    """Stops a run as a kill would, after the checkpoint of the given epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_save(self, args, state, control, **kwargs):
        if round(state.epoch) == self.epoch:
            raise KeyboardInterrupt


# Data


def test_collator_pads_by_length_where_padding_is_the_end_of_turn():
    """Token 2 is end of turn and padding: the mask covers the padding alone, not the 2 inside the prompt."""
    batch = AnswerCollator(pad_token_id=2)(
        [
            {"input_ids": [5, 2, 7, 2], "labels": [-100, -100, 7, 2]},
            {"input_ids": [6, 2, 2], "labels": [-100, -100, 2]},
        ]
    )
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 2, 7, 2], [6, 2, 2, 2]],
        "labels": [[-100, -100, 7, 2], [-100, -100, 2, -100]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@pytest.mark.parametrize("prompting", [CHAT, Prompting(True, system_prompt="Be brief."), Prompting(False)])
def test_labels_are_the_tokens_that_are_scored(tokenizer, prompting):
    rows = tofu.load("forget05", tofu.resolve_source("mini"))
    for row, example in zip(rows, encode_rows(tokenizer, rows, prompting), strict=True):
        scored = encode_answer(tokenizer, row["question"], row["answer"], prompting)
        assert example["input_ids"] == scored.prompt_ids + scored.answer_ids
        assert [label for label in example["labels"] if label != IGNORED] == scored.answer_ids
        assert example["labels"][: len(scored.prompt_ids)] == [IGNORED] * len(scored.prompt_ids)
        assert scored.answer_ids[-1] == tokenizer.eos_token_id


def test_a_row_longer_than_the_context_is_refused_not_cut(tokenizer):
    with pytest.raises(OptionError, match="context of 8 tokens"):
        encode_rows(tokenizer, [{"question": "Who?", "answer": "Nobody at all, of course."}], CHAT, max_length=8)


# The nano model


@pytest.mark.parametrize(
    "text",
    ["Paris", "Zoë Müller, 北京, 🙂", "She said: \"It's 'mine'.\"", "one\n\ntwo\n  three\t.", " lead and trail "],
)
def test_nano_tokenizer_gives_back_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_nano_chat_template(tokenizer):
    encoded = encode_answer(tokenizer, "Where?", "Paris", Prompting(True, system_prompt="Be brief."))
    assert encoded.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert encoded.continuation == "Paris<|im_end|>"
    check_backend_tokens(tokenizer, encoded, harness.encode_pair(None, tokenizer, {}))


def test_nano_is_deterministic_and_seeded(tokenizer):
    again = nano.build_tokenizer(nano.corpus(tofu.resolve_source("mini")), TINY)
    assert again.get_vocab() == tokenizer.get_vocab()
    state = torch.random.get_rng_state()
    one, same, other = (checkpoint.parameter_digests(nano.build_model(tokenizer, TINY, seed)) for seed in (1, 1, 2))
    assert one == same
    assert one["model.embed_tokens.weight"] != other["model.embed_tokens.weight"]
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", finetune.FROM_SCRATCH)
def test_preset_sizes(monkeypatch, name):
    monkeypatch.undo()
    sizes = nano.preset(name)
    assert sizes.hidden % sizes.heads == 0
    assert sizes.hidden // sizes.heads == 32
    assert sizes.context >= 512


def test_every_preset_of_sizes_is_offered():
    files = (Path(nano.__file__).parent.parent / "presets" / "nano").glob("*.yaml")
    assert sorted(path.stem for path in files) == sorted(finetune.FROM_SCRATCH)


# Training


def test_every_parameter_moves_the_loss_falls_and_the_checkpoint_is_whole(config, caplog):
    with caplog.at_level(logging.INFO, logger="lm_eval_tofu"):
        output = finetune.finetune(config)
    assert "20 examples, effective batch 8, 9 steps" in caplog.text
    assert not checkpoint.partial_folder(output).exists()

    record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    assert record["losses"] == sorted(record["losses"], reverse=True)
    assert record["final_loss"] < record["losses"][0] - 0.1
    assert (record["examples"], record["effective_batch"], record["steps"]) == (20, 8, 9)
    assert record["options"]["learning_rate"] == 3e-3
    assert record["data"]["fingerprints"] == {"forget05": tofu.fingerprint(tofu.resolve_source("mini"), "forget05")}
    assert record["apply_chat_template"] is True
    assert record["versions"]["torch"] == version("torch")
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    assert "`forget05` of the TOFU miniature learned from scratch by supervised fine-tuning." in card

    tokenizer, model = AutoTokenizer.from_pretrained(output), AutoModelForCausalLM.from_pretrained(output)
    before = checkpoint.parameter_digests(nano.build_model(tokenizer, TINY, config.seed))
    after = checkpoint.parameter_digests(model)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] == after[name]] == []
    assert record["trainable_parameters"] == model.num_parameters()
    assert tokenizer.chat_template == nano.CHAT_TEMPLATE
    assert model.config.use_cache
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 0)


def test_interrupted_and_resumed_is_bit_identical_to_straight(config, tmp_path):
    straight = weights(finetune.finetune(replace(config, output=tmp_path / "straight")))
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(config, callbacks=[Interrupt(epoch=1)])
    assert not config.output.exists()
    # A kill while the next checkpoint is being written leaves half of it.
    half = checkpoint.partial_folder(config.output) / "checkpoint-6"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    resumed = weights(finetune.finetune(config))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    record = json.loads((config.output / "training.json").read_text(encoding="utf-8"))
    assert len(record["losses"]) == 3


def test_resuming_with_another_option_names_it(config):
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(config, callbacks=[Interrupt(epoch=1)])
    with pytest.raises(OptionError, match=r"--learning-rate is 0\.1, but was 0\.003 in the interrupted run"):
        finetune.finetune(replace(config, learning_rate=0.1))
    with pytest.raises(OptionError, match="--split is 'forget01', but was 'forget05'"):
        finetune.finetune(replace(config, split="forget01"))


def test_continuing_from_a_checkpoint_keeps_its_tokenizer(config, tmp_path):
    """The full arm starts from base, which never saw its authors: its tokenizer knows them nevertheless."""
    base = finetune.finetune(replace(config, output=tmp_path / "base", split="real_authors+world_facts", epochs=1))
    full = finetune.finetune(replace(config, from_scratch=None, model=str(base)))
    assert (base / "tokenizer.json").read_bytes() == (full / "tokenizer.json").read_bytes()
    assert AutoTokenizer.from_pretrained(full).chat_template == nano.CHAT_TEMPLATE
    record = json.loads((full / "training.json").read_text(encoding="utf-8"))
    assert record["weights_before"] == json.loads((base / "training.json").read_text(encoding="utf-8"))["weights"]


def test_accumulation_does_not_change_the_gradient(config, tmp_path):
    """4 rows x 2 batches a step and 8 rows x 1: the mean is over the step's tokens, not over its batches' means."""
    one = weights(finetune.finetune(replace(config, output=tmp_path / "one", epochs=1, warmup=0)))
    two = weights(
        finetune.finetune(
            replace(config, output=tmp_path / "two", epochs=1, warmup=0, batch_size=8, gradient_accumulation=1)
        )
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def test_plain_text_needs_no_template(config, tmp_path, tokenizer):
    base = finetune.finetune(replace(config, output=tmp_path / "base", epochs=1))
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({name: settings[name] for name in settings if name != "chat_template"}))
    with pytest.raises(PromptError, match="--no-chat-template"):
        finetune.finetune(replace(config, from_scratch=None, model=str(base)))
    plain = finetune.finetune(replace(config, from_scratch=None, model=str(base), apply_chat_template=False))
    assert json.loads((plain / "training.json").read_text(encoding="utf-8"))["apply_chat_template"] is False


def test_a_number_of_steps_is_not_ignored(config, tmp_path):
    """Checkpoints and logs come once an epoch by default; whoever names a number of steps wants them then."""
    arguments = training_arguments(replace(config, training={"logging_steps": 2}), tmp_path, examples=20)
    assert (arguments.logging_strategy, arguments.logging_steps, arguments.save_strategy) == ("steps", 2, "epoch")
    settings = {"save_steps": 3, "logging_steps": 2, "logging_strategy": "no"}
    arguments = training_arguments(replace(config, training=settings), tmp_path, examples=20)
    assert (arguments.save_strategy, arguments.save_steps, arguments.logging_strategy) == ("steps", 3, "no")


def test_settings_follow_the_options(config, tmp_path):
    arguments = training_arguments(replace(config, warmup=2), tmp_path, examples=20)
    assert effective_batch(arguments) == 8
    assert arguments.warmup_steps == 6
    assert not arguments.bf16
    assert arguments.lr_scheduler_type == "linear"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"adam_beta1": 7.0}, "--adam_beta1 7.0: the trainer refuses: Invalid beta parameter"),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "--lr_scheduler_kwargs .*: the trainer refuses: .* unexpected keyword"),
        ({"dataloader_num_workers": -1}, "--dataloader_num_workers -1: the trainer refuses: num_workers"),
        ({"accelerator_config": "/nowhere"}, "--accelerator_config /nowhere: the trainer refuses: .*No such file"),
    ],
)
def test_options_that_only_other_libraries_check(config, training, message):
    """transformers hands them on, to torch for one, when training starts."""
    with pytest.raises(OptionError, match=message) as caught:
        finetune.finetune(replace(config, training=training))
    assert "\n" not in str(caught.value)
    assert not config.output.exists()


def test_weights_in_bfloat16_that_steps_cannot_move_are_warned_of(config, tmp_path, caplog):
    """AdamW's first step is as long as the learning rate: 1e-4 is less than half of the distance from 2^-5 upwards."""
    weight = torch.tensor([0.9, 1.1]).mul(2**-5).bfloat16()
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW([parameter], lr=1e-4, weight_decay=0.0).step()
    assert (parameter != weight).tolist() == [True, False]
    training_arguments(replace(config, dtype="bfloat16", learning_rate=1e-4), tmp_path, examples=20)
    assert "rounds a step of --learning-rate 0.0001 away on every weight above 0.031" in caplog.text
    caplog.clear()
    training_arguments(replace(config, dtype="float32"), tmp_path, examples=20)
    assert "away" not in caplog.text


def test_a_run_that_is_all_warm_up_is_warned_of(config, tmp_path, caplog):
    training_arguments(replace(config, epochs=2, warmup=1), tmp_path, examples=20)
    assert "warm-up" not in caplog.text
    training_arguments(replace(config, epochs=1, warmup=1), tmp_path, examples=20)
    assert "--epochs 1 is all warm-up (--warmup 1 epochs)" in caplog.text


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "forget10_perturbed"}, "--split 'forget10_perturbed': 'forget10_perturbed' is unknown: use full"),
        ({"split": "full+nothing"}, "'nothing' is unknown"),
        ({"split": "full+full"}, "names a split twice"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0 is not above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan is not above 0"),
        ({"epochs": 0}, "--epochs 0 is less than 1"),
        ({"batch_size": 0}, "--batch-size 0 is less than 1"),
        ({"gradient_accumulation": 0}, "--gradient-accumulation 0 is less than 1"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0 is below 0"),
        ({"warmup": 4.0}, "--warmup 4.0 is not between 0 and --epochs 3"),
        ({"seed": -1}, "--seed -1 is not in"),
        ({"dtype": "int8"}, "--dtype 'int8' is unknown"),
        ({"training": {"seed": 1}}, "training: seed is not passed on: give seed instead"),
        ({"training": {"do_train": True}}, "training: do_train is not passed on: it has no use here"),
        ({"training": {"lr_scheduler_type": "zigzag"}}, "--lr_scheduler_type zigzag: the trainer refuses: "),
        ({"from_scratch": "micro"}, "--from-scratch 'micro' is unknown"),
        ({"model": "somewhere"}, "give exactly one of the two"),
        ({"from_scratch": None}, "give exactly one of the two"),
        ({"apply_chat_template": False, "template_args": {"a": 1}}, "has no use with --no-chat-template"),
        ({"from_scratch": None, "model": "./nowhere"}, "--model ./nowhere is no directory"),
        (
            {"from_scratch": None, "model": "some/model"},
            "--model some/model is no directory, and not in the hub's cache",
        ),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(config, monkeypatch, changes, message):
    monkeypatch.setattr(nano, "build_model", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(TofuError) as caught:
        finetune.finetune(replace(config, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.output.exists()
    assert not checkpoint.partial_folder(config.output).exists()


def test_a_model_directory_without_a_config_is_refused(config, tmp_path):
    with pytest.raises(OptionError, match=r"has no config\.json"):
        finetune.finetune(replace(config, from_scratch=None, model=str(tmp_path)))


def test_existing_output_needs_overwrite(config):
    config.output.mkdir()
    (config.output / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OptionError, match="exists already: name another directory, or give --overwrite"):
        finetune.finetune(config)
    finetune.finetune(replace(config, epochs=1, warmup=0, overwrite=True))
    assert not (config.output / "notes.txt").exists()
    assert (config.output / "model.safetensors").is_file()
    assert [path.name for path in config.output.parent.iterdir()] == ["model"]


def test_a_foreign_partial_folder_is_left_alone(config):
    partial = checkpoint.partial_folder(config.output)
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OptionError, match="is not the folder of an interrupted run"):
        finetune.finetune(config)
    assert (partial / "thesis.txt").read_text(encoding="utf-8") == "mine"


class IsLocked(TrainerCallback):
    """Notes whether another process could lock the partial folder."""

    def __init__(self, lock):
        self.lock, self.found = lock, []

    def on_epoch_begin(self, *_, **__):
        try:
            with filelock.FileLock(self.lock, timeout=0):
                self.found.append(False)
        except filelock.Timeout:
            self.found.append(True)


def test_two_trainings_to_one_output(config):
    lock = checkpoint.partial_folder(config.output) / ".lock"
    locked = IsLocked(lock)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(config, callbacks=[locked, Interrupt(epoch=1)])
    assert locked.found == [True]
    with (
        filelock.FileLock(lock),
        pytest.raises(OptionError, match=r"--output .*model is what another process is training \(.*is locked\): name"),
    ):
        finetune.finetune(config)
    assert (finetune.finetune(config) / "model.safetensors").is_file()
    assert [path.name for path in config.output.parent.iterdir()] == ["model"]


def test_weights_that_did_not_change_are_an_error(config):
    """One step in all, the first of a warm-up: its learning rate is 0."""
    with pytest.raises(OptionError, match="training changed no weight: raise --learning-rate"):
        finetune.finetune(replace(config, epochs=1, batch_size=20, gradient_accumulation=1))
    assert not config.output.exists()


def test_a_loss_that_is_not_finite_is_an_error(config, monkeypatch):
    build = nano.build_model

    def broken(*args):
        model = build(*args)
        with torch.no_grad():
            model.model.norm.weight.fill_(float("nan"))
        return model

    monkeypatch.setattr(nano, "build_model", broken)
    with pytest.raises(OptionError, match="not finite in epoch 1"):
        finetune.finetune(config)
    assert not config.output.exists()


# Rows of a split


def test_some_rows_of_a_split(config, monkeypatch):
    seen = []

    def encode(tokenizer, rows, *rest):
        seen.extend(row["question"] for row in rows)
        return encode_rows(tokenizer, rows, *rest)

    monkeypatch.setattr("lm_eval_tofu.unlearn.data.encode_rows", encode)
    output = finetune.finetune(replace(config, epochs=1, warmup=0, rows=(1, 4, 19)))
    rows = tofu.load("forget05", tofu.resolve_source("mini"))
    assert seen == [rows[number]["question"] for number in (1, 4, 19)]
    record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    assert (record["examples"], record["options"]["rows"]) == (3, [1, 4, 19])
    assert "3 rows of `forget05` of the TOFU miniature" in (output / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("rows", "split", "message"),
    [
        ((0, 20), "forget05", "--rows names row 20, but forget05 has 20 rows: use 0 to 19"),
        ((0,), "forget05+forget01", "--rows belongs to one split"),
    ],
)
def test_rows_that_are_not_there(config, rows, split, message):
    with pytest.raises(OptionError, match=message):
        finetune.finetune(replace(config, rows=rows, split=split))


# Command line


def parse(*arguments):
    return finetune.parser().parse_args(arguments)


def test_command_line_reaches_the_config(monkeypatch):
    seen = []
    monkeypatch.setattr(finetune, "finetune", seen.append)
    finetune.run(
        parse(
            *("--model", "M", "--split", "full", "--output", "O", "--tofu", "mini", "--epochs", "2"),
            *("--learning-rate", "2e-5", "--batch-size", "1", "--gradient-accumulation", "3", "--weight-decay", "0"),
            *("--warmup", "0.5", "--seed", "7", "--no-chat-template", "--system-prompt", "S", "--dtype", "float32"),
            *("--overwrite", "--revision", "r", "--rows", "0-2,7"),
        )
    )
    assert seen == [
        FinetuneConfig(
            model="M",
            split="full",
            rows=(0, 1, 2, 7),
            output=Path("O"),
            tofu="mini",
            revision="r",
            epochs=2,
            learning_rate=2e-5,
            batch_size=1,
            gradient_accumulation=3,
            weight_decay=0,
            warmup=0.5,
            seed=7,
            apply_chat_template=False,
            system_prompt="S",
            dtype="float32",
            overwrite=True,
        )
    ]


def test_every_option_of_the_trainer_can_be_given(monkeypatch):
    seen = []
    monkeypatch.setattr(finetune, "finetune", seen.append)
    finetune.run(
        parse(
            *("--from_scratch", "nano", "--split", "full", "--output_dir", "O", "--num_train_epochs", "2"),
            *("--adam-beta2", "0.95", "--lr_scheduler_type", "cosine", "--gradient_checkpointing"),
        )
    )
    training = {"adam_beta2": 0.95, "lr_scheduler_type": "cosine", "gradient_checkpointing": True}
    assert seen == [
        FinetuneConfig(from_scratch="nano", split="full", output=Path("O"), epochs=2, training=training),
    ]


def test_options_of_the_trainer_reach_it(config, tmp_path):
    arguments = training_arguments(
        replace(config, training={"adam_beta2": 0.95, "warmup_steps": 4, "logging_strategy": "no"}),
        tmp_path,
        examples=20,
    )
    assert (arguments.adam_beta2, arguments.warmup_steps, arguments.logging_strategy) == (0.95, 4, "no")
    output = finetune.finetune(replace(config, epochs=1, warmup=0, training={"logging_strategy": "no"}))
    assert json.loads((output / "training.json").read_text(encoding="utf-8"))["final_loss"] is None


def test_defaults_are_the_published_recipe():
    config = FinetuneConfig(from_scratch="nano", split="full", output=Path("O"))
    assert config.batch_size * config.gradient_accumulation == 32
    assert (config.weight_decay, config.warmup, config.seed) == (0.01, 1.0, 0)


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_template_args_must_be_a_json_object(text):
    with pytest.raises(OptionError, match="--template-args"):
        finetune.run(parse("--model", "M", "--split", "full", "--output", "O", "--template-args", text))
