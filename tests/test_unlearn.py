"""`unlearn` from the options to the finished checkpoint, on the miniature with tiny models."""

import json
import logging
import math
import resource
import shutil
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from lm_eval_tofu import cli, tofu
from lm_eval_tofu.errors import OptionError, TofuError
from lm_eval_tofu.unlearn import checkpoint, options, unlearning
from lm_eval_tofu.unlearn.finetune import FinetuneConfig, finetune
from lm_eval_tofu.unlearn.trainer import UnlearningTrainer
from lm_eval_tofu.unlearn.unlearning import UnlearnConfig, unlearn

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def few_retain_rows(monkeypatch):
    """12 retain rows instead of 396, which would take a second to tokenize in each test."""
    load = tofu.load
    monkeypatch.setattr(tofu, "load", lambda name, source: load(name, source)[: 12 if "retain" in name else None])


@pytest.fixture
def config(tiny_model, tmp_path):
    """4 forget rows, 2 steps an epoch."""
    return UnlearnConfig(
        model=str(tiny_model),
        forget_split="forget01",
        tofu="mini",
        output=tmp_path / "unlearned",
        epochs=3,
        learning_rate=1e-3,
        batch_size=1,
        gradient_accumulation=2,
    )


def weights(folder):
    return load_file(folder / "model.safetensors")


def record(folder):
    return json.loads((folder / "unlearning.json").read_text(encoding="utf-8"))


class Interrupt(TrainerCallback):
    """Stops a run as a kill would, after the checkpoint of the given step."""

    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


# The checkpoint


def test_the_checkpoint_is_whole_and_says_how_it_was_made(config, caplog):
    with caplog.at_level(logging.INFO, logger="lm_eval_tofu"):
        output = unlearn(config)
    assert (
        "unlearning forget01 with npo, a row of retain99 beside each example: 4 examples, effective batch 2, 6 steps"
        in caplog.text
    )
    assert "memory a device: at least" in caplog.text
    assert not checkpoint.partial_folder(output).exists()

    tokenizer, model = AutoTokenizer.from_pretrained(output), AutoModelForCausalLM.from_pretrained(output)
    before, after = weights(Path(config.model)), weights(output)
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(config.model).chat_template
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.use_cache
    # For release 4 of transformers.
    written = [json.loads((output / name).read_text()) for name in ("config.json", "tokenizer_config.json")]
    assert (written[0]["rope_theta"], written[1]["tokenizer_class"]) == (10000.0, "PreTrainedTokenizerFast")
    assert written[1]["chat_template"] == tokenizer.chat_template

    made = record(output)
    source = tofu.resolve_source("mini")
    assert made["method"] == "npo"
    assert made["options"] == json.loads(json.dumps(config.reproducibility_fields()))
    assert made["trainer_options"]["adam_beta2"] == 0.999
    assert made["data"]["fingerprints"] == {s: tofu.fingerprint(source, s) for s in ("forget01", "retain99")}
    assert (made["examples"], made["retain_examples"], made["effective_batch"], made["steps"]) == (4, 12, 2, 6)
    assert made["weights_before"] == made["reference"]["weights"] != made["weights"]
    assert made["weights"] == checkpoint.fingerprint(checkpoint.saved_digests(output))
    assert [entry["epoch"] for entry in made["losses"]] == [1, 2, 3]
    assert made["final"]["loss"] == made["losses"][-1]["loss"] < made["losses"][0]["loss"]
    assert 0 < made["final"]["forget_share"] < 1
    assert made["versions"]["torch"] == version("torch")
    assert "git_revision" in made


def test_model_card_inherits_licence_and_base(config, tmp_path):
    base = shutil.copytree(config.model, tmp_path / "base")
    (base / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama3.2\nlicense_link: LICENSE.txt\nbase_model: meta/Llama\n---\n# Base\n",
        encoding="utf-8",
    )
    data = ModelCard.load(unlearn(replace(config, model=str(base), epochs=1, warmup=0)) / "README.md").data
    assert (data.license, data.license_name, data.license_link) == ("other", "llama3.2", "LICENSE.txt")
    assert data.base_model == "meta/Llama"
    assert data.library_name == "transformers"
    assert data.language == "en"
    assert data.datasets is None  # the miniature is not on the hub
    assert {"unlearning", "tofu", "npo"} <= set(data.tags)
    bare = replace(config, epochs=1, warmup=0, output=tmp_path / "bare")
    data = ModelCard.load(unlearn(bare) / "README.md").data
    assert (data.license, data.base_model) == (None, None)


def test_grad_ascent_uses_no_retain_rows(config):
    made = record(unlearn(replace(config, method="grad_ascent", epochs=1, warmup=0)))
    assert made["retain_examples"] == 0
    assert "retain_loss" not in made["final"]


def test_some_retain_rows_alone_are_kept(config, monkeypatch):
    """Beside a model that was trained on a part of the retain split, the other rows would be taught."""
    seen = []
    init = UnlearningTrainer.__init__

    def spy(self, model, arguments, forget, retain, *rest, **more):
        seen.extend(retain)
        init(self, model, arguments, forget, retain, *rest, **more)

    monkeypatch.setattr(UnlearningTrainer, "__init__", spy)
    folder = unlearn(replace(config, retain_rows=(0, 1, 5), epochs=1, warmup=0))
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    rows = tofu.load("retain99", tofu.resolve_source("mini"))
    for example, number in zip(seen, (0, 1, 5), strict=True):
        assert rows[number]["answer"] in tokenizer.decode(example["input_ids"])
    made = record(folder)
    assert (made["retain_examples"], made["options"]["retain_rows"]) == (3, [0, 1, 5])
    assert "3 rows of retain99" in (folder / "README.md").read_text(encoding="utf-8")


# LoRA


def test_lora_is_merged_by_default(config):
    output = unlearn(replace(config, lora_r=4, training={"gradient_checkpointing": True}))
    before, after = weights(Path(config.model)), weights(output)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert record(output)["trainable_parameters"] < sum(tensor.numel() for tensor in before.values()) / 2
    assert not (output / "adapter_config.json").exists()


def test_merging_rounds_once_and_says_what_rounding_lost(config, caplog):
    """In bfloat16, updates as small as these are rounded away: the record has how much, and the adapters are kept."""
    from peft import PeftModel

    output = unlearn(replace(config, lora_r=4, dtype="bfloat16", learning_rate=2e-4, warmup=0))
    base = AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.bfloat16).float()
    saved = weights(output)
    lost = size = 0.0
    for name, module in PeftModel.from_pretrained(base, str(output / "adapters")).named_modules():
        if hasattr(module, "get_delta_weight"):
            update = module.get_delta_weight("default").detach()
            exact = module.get_base_layer().weight.detach() + update
            found = saved[f"{name.removeprefix('base_model.model.')}.weight"]
            assert torch.equal(found, exact.bfloat16())
            lost += (found.float() - exact).square().sum().item()
            size += update.square().sum().item()
    merge = record(output)["merge"]
    assert sorted(path.name for path in (output / "adapters").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert merge["dtype"] == "bfloat16"
    assert merge["update_error"] == pytest.approx((lost / size) ** 0.5, rel=1e-4)
    assert merge["update_error"] > 0.3
    assert merge["loss_adapters"] != merge["loss_before"]
    [warning] = [each.getMessage() for each in caplog.records if "merging the adapters" in each.message]
    assert f"relative error of the update {merge['update_error']:.2f}" in warning
    assert "Give --dtype float32" in warning
    assert "--no-lora-merge" in warning


def test_nothing_is_lost_by_merging_in_float32(config, caplog):
    output = unlearn(replace(config, lora_r=4))
    merge = record(output)["merge"]
    assert merge["update_error"] < 1e-4
    assert merge["loss_merged"] == pytest.approx(merge["loss_adapters"], abs=1e-4)
    assert abs(merge["loss_adapters"] - merge["loss_before"]) > 0.01
    assert "merging the adapters" not in caplog.text
    assert not (output / "adapters").exists()


@pytest.mark.parametrize("target", ["q_proj,lm_head", "embed_tokens", "model.embed_tokens"])
def test_adapters_on_tied_embeddings_are_refused(config, target):
    """Input and output embeddings of the tiny model are one: merged into one, the adapters would act on both."""
    with pytest.raises(OptionError, match=r"--lora-target '.*(lm_head|embed_tokens)': .* shares the weights .*leave"):
        unlearn(replace(config, lora_r=4, lora_target=target))
    assert not config.output.exists()


def test_adapters_on_an_output_embedding_of_its_own(config, tmp_path):
    """The merged model gives the logits of the trained one."""
    from peft import PeftModel

    base = shutil.copytree(config.model, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = torch.randn(embedding.shape, generator=generator) / 5
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    config = replace(config, model=str(base), lora_r=4, lora_target="q_proj,lm_head", training={})
    merged = AutoModelForCausalLM.from_pretrained(unlearn(config))
    alone = unlearn(replace(config, lora_merge=False, output=tmp_path / "alone"))
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(alone))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, trained(ids).logits, atol=1e-4)


@pytest.mark.slow
def test_lora_adapters_alone(config):
    from peft import PeftModel

    output = unlearn(replace(config, lora_r=4, lora_target="q_proj,v_proj", lora_merge=False))
    assert not (output / "model.safetensors").exists()
    merged = unlearn(replace(config, lora_r=4, lora_target="q_proj,v_proj", output=config.output.with_name("merged")))
    base = AutoModelForCausalLM.from_pretrained(config.model)
    again = PeftModel.from_pretrained(base, str(output)).merge_and_unload().state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights(merged).items())


# Models with a vision part


def test_a_model_with_a_vision_part(config, tmp_path):
    """Gemma 3 from 4B on: the text model's settings are one level down, and weights have other names on disk."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(config.model)
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(tokenizer) + 3, "max_position_embeddings": 512}
    names = ("boi_token_index", "eoi_token_index", "image_token_index")
    images = dict(zip(names, range(len(tokenizer), len(tokenizer) + 3), strict=True))
    settings = Gemma3Config(
        text_config={**common, **text}, vision_config={**common, "image_size": 28, "patch_size": 14}, **images
    )
    base = tmp_path / "gemma"
    Gemma3ForConditionalGeneration(settings).save_pretrained(base)
    tokenizer.save_pretrained(base)

    full = finetune(
        FinetuneConfig(model=str(base), split="forget01", tofu="mini", output=tmp_path / "full", epochs=2, warmup=0)
    )
    trained = json.loads((full / "training.json").read_text())
    output = unlearn(replace(config, model=str(full)))
    made = record(output)
    assert made["weights_before"] == trained["weights"] != made["weights"]
    assert made["final"]["loss"] != made["losses"][0]["loss"]
    before, after = weights(full), weights(output)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name for name in changed)
    assert json.loads((output / "config.json").read_text()) == json.loads((full / "config.json").read_text())
    lora = unlearn(replace(config, model=str(full), lora_r=2, output=tmp_path / "lora"))
    assert record(lora)["merge"]["update_error"] < 1e-3


# Resuming


@pytest.mark.parametrize(
    "changes", [{}, *(pytest.param(each, marks=pytest.mark.slow) for each in ({"lora_r": 4}, {"retain_loss": "kl"}))]
)
def test_interrupted_and_resumed_is_bit_identical_to_straight(config, tmp_path, changes):
    """Interrupted in the middle of the second epoch, after the third of six steps."""
    config = replace(config, training={"save_strategy": "steps", "save_steps": 1}, **changes)
    straight = unlearn(replace(config, output=tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        unlearn(config, callbacks=[Interrupt(step=3)])
    assert not config.output.exists()
    resumed = unlearn(config)
    one, other = weights(straight), weights(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert record(straight)["reference"] == record(resumed)["reference"]


def test_resuming_without_the_reference_of_the_beginning_is_refused(config):
    with pytest.raises(KeyboardInterrupt):
        unlearn(config, callbacks=[Interrupt(step=2)])
    [reference] = checkpoint.partial_folder(config.output).glob("reference-*.json")
    reference.unlink()
    with pytest.raises(OptionError, match=r"of the interrupted run is missing or damaged.*delete"):
        unlearn(config)


def test_a_damaged_checkpoint_is_not_resumed_from(config, caplog):
    with pytest.raises(KeyboardInterrupt):
        unlearn(config, callbacks=[Interrupt(step=2)])
    partial = checkpoint.partial_folder(config.output)
    damaged = partial / "checkpoint-2" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    unlearn(config)
    assert "checkpoint-2 is not whole (model.safetensors: " in caplog.text
    assert record(config.output)["steps"] == 6


def test_resuming_with_another_option_names_it(config):
    with pytest.raises(KeyboardInterrupt):
        unlearn(config, callbacks=[Interrupt(step=2)])
    with pytest.raises(OptionError, match=r"--beta is 0\.5, but was 0\.1 in the interrupted run"):
        unlearn(replace(config, beta=0.5))


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "--method 'magic' is unknown: use one of npo, simnpo, grad_ascent, grad_diff"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0 is not above 0"),
        ({"learning_rate": -1e-5}, "--learning-rate -1e-05 is not above 0"),
        ({"beta": 0.0}, "--beta 0.0 is not above 0"),
        ({"beta": -0.1}, "--beta -0.1 is not above 0"),
        ({"alpha": -1.0}, "--alpha -1.0 is below 0"),
        ({"retain_loss": "mse"}, "--retain_loss 'mse' is unknown"),
        ({"forget_split": "forget02"}, "--forget-split 'forget02' is unknown: use forget01, forget05, forget10"),
        ({"forget_split": "retain90"}, "--forget-split 'retain90' is what is kept: use forget01"),
        ({"retain_rows": (3, 12)}, "--retain-rows names row 12, but retain99 has 12 rows: use 0 to 11"),
        ({"lora_r": 0}, "--lora-r 0 is less than 1"),
        ({"lora_alpha": 8.0}, "--lora-alpha 8.0 has no use without --lora-r"),
        ({"lora_target": "q_proj"}, "--lora-target q_proj has no use without --lora-r"),
        ({"lora_merge": False}, "--no-lora-merge has no use without --lora-r"),
        ({"lora_r": 4, "lora_alpha": 0.0}, "--lora-alpha 0.0 is not above 0"),
        ({"lora_r": 4, "lora_alpha": math.inf}, "--lora-alpha inf is not above 0"),
        ({"lora_r": 4, "lora_target": "q_proj,"}, "--lora-target 'q_proj,' names an empty module"),
        ({"reference_cache": __file__}, "--reference_cache "),
        ({"model": "./nowhere"}, "--model ./nowhere is no directory"),
        ({"training": {"num_train_epochs": 3}}, "training: num_train_epochs is not passed on: give epochs instead"),
        ({"training": {"beta": 1.0}}, "training: beta is not passed on: give beta instead"),
        ({"training": {"retain_rows": "0-3"}}, "training: retain_rows is not passed on: give retain_rows instead"),
        ({"training": {"nonsense": 1}}, "--nonsense 1: the trainer refuses: "),
        ({"training": {"fp16": True}}, "--fp16 needs a GPU and there is none: leave it out"),
        ({"training": {"bf16": True}}, "--bf16 needs a GPU and there is none: leave it out"),
        ({"dtype": "mixed"}, "--dtype mixed needs a GPU with bfloat16"),
        ({"tofu": "nowhere"}, "tofu='nowhere' is no directory"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(config, monkeypatch, changes, message):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(TofuError) as caught:
        unlearn(replace(config, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.output.exists()
    assert not checkpoint.partial_folder(config.output).exists()


def test_another_kind_of_model_is_refused_before_it_is_loaded(config, tmp_path):
    """T5 is an encoder and a decoder; some models with a vision part have no causal class either."""
    from transformers import T5Config

    base = shutil.copytree(config.model, tmp_path / "base")
    T5Config().save_pretrained(base)
    with pytest.raises(OptionError, match=r"--model .*base is of the architecture t5, for which .*ends in ForCausalLM"):
        unlearn(replace(config, model=str(base)))


def test_adapters_are_no_model(config, tmp_path):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "adapter_config.json").write_text("{}")
    with pytest.raises(OptionError, match=r"--model .*adapters holds LoRA adapters and no model: merge them"):
        unlearn(replace(config, model=str(tmp_path / "adapters")))


def test_a_missing_split_is_named(config, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(TofuError, match=r"has no forget01\.json, so the configuration 'forget01' is missing"):
        unlearn(replace(config, tofu=str(folder)))


def test_a_tokenizer_without_template_is_refused(config, tmp_path):
    base = shutil.copytree(config.model, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(TofuError, match=r"--model .*: its tokenizer has no chat template: give --no-chat-template"):
        unlearn(replace(config, model=str(base)))
    assert record(unlearn(replace(config, model=str(base), apply_chat_template=False)))["apply_chat_template"] is False


def test_lora_on_a_module_that_does_not_exist(config):
    with pytest.raises(OptionError, match="--lora-target 'c_attn' is no module of LlamaForCausalLM: use down_proj, "):
        unlearn(replace(config, lora_r=4, lora_target="q_proj,c_attn"))


@pytest.mark.parametrize("damage", ["cut", "shape"])
def test_a_corrupt_model_is_named(config, tmp_path, damage):
    base = shutil.copytree(config.model, tmp_path / "base")
    path = base / "model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        tensors = load_file(path)
        save_file({**tensors, "model.norm.weight": torch.ones(3)}, path, metadata={"format": "pt"})
    with pytest.raises(OptionError, match=r"--model .*base cannot be loaded \(.*\): check its files") as caught:
        unlearn(replace(config, model=str(base)))
    assert "\n" not in str(caught.value)


def test_weights_that_did_not_change_are_an_error(config):
    """One step in all, the first of a warm-up: its learning rate is 0."""
    with pytest.raises(OptionError, match="training changed no weight: raise --learning-rate"):
        unlearn(replace(config, epochs=1, batch_size=4, gradient_accumulation=1))
    with pytest.raises(OptionError, match="training changed no weight"):
        unlearn(replace(config, epochs=1, batch_size=4, gradient_accumulation=1, lora_r=4, lora_merge=False))
    assert not config.output.exists()


def test_a_loss_that_is_not_finite_is_an_error(config, monkeypatch):
    monkeypatch.setattr(UnlearningTrainer, "_forget_losses", lambda _, logprobs, *__: logprobs * float("nan"))
    with pytest.raises(OptionError, match="not finite in epoch 1, so nothing is written: lower it"):
        unlearn(config)
    assert not config.output.exists()


def test_a_full_disk_loses_nothing_finished(config):
    """Files may not grow above 100 kB, as on a full disk: the model has 400."""
    finished = unlearn(replace(config, epochs=1, warmup=0))
    before = weights(finished)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OptionError, match=r"--output .*unlearned cannot be written \(.*make room there") as caught:
            unlearn(replace(config, overwrite=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(finished).items())
    unlearn(replace(config, overwrite=True))
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(finished).items())


# Command line


def parse(*arguments):
    return unlearning.parser().parse_args(arguments)


@pytest.fixture
def seen(monkeypatch):
    """The configurations that `unlearn` is called with."""
    configs = []
    monkeypatch.setattr(unlearning, "unlearn", configs.append)
    return configs


def test_the_published_run(seen):
    unlearning.run(
        parse(
            *("--model", "M", "--forget-split", "forget10", "--output", "O", "--method", "npo", "--alpha", "1"),
            *("--beta", "0.1", "--epochs", "10", "--lr", "5e-5"),
        )
    )
    assert seen == [UnlearnConfig(model="M", forget_split="forget10", output=Path("O"))]
    assert seen[0].batch_size * seen[0].gradient_accumulation == 32
    assert (seen[0].weight_decay, seen[0].warmup, seen[0].seed) == (0.01, 1.0, 0)


def test_every_option_of_the_trainer_can_be_given(seen):
    unlearning.run(
        parse(
            *("--model", "M", "--forget_split", "forget01", "--output-dir", "O", "--lora-r", "8", "--no-lora-merge"),
            *("--adam_beta2", "0.95", "--lr-scheduler-type", "cosine", "--report_to", "tensorboard"),
            *("--gradient-checkpointing", "--precompute_reference", "false", "--per_device_train_batch_size", "3"),
        )
    )
    [config] = seen
    assert (config.lora_r, config.lora_merge, config.batch_size) == (8, False, 3)
    assert not config.precompute_reference
    assert config.training == {
        **{"adam_beta2": 0.95, "lr_scheduler_type": "cosine", "report_to": "tensorboard"},
        "gradient_checkpointing": True,
    }


def test_options_from_a_file_and_the_command_line_overrules_it(seen, tmp_path):
    path = tmp_path / "npo.yaml"
    path.write_text(
        "model: M\nforget-split: forget05\nlr: 2e-5\nbatch_size: 4\nno_chat_template: true\noverwrite: false\n"
        "adam_beta2: 0.95\nlr_scheduler_kwargs: {min_lr: 1.0e-6}\nsystem_prompt: Be brief.\nrevision: null\n",
        encoding="utf-8",
    )
    assert cli.main(["unlearn", "--config", str(path), "--output", "O", "--lr", "1e-4"]) == 0
    [config] = seen
    assert config == UnlearnConfig(
        model="M",
        forget_split="forget05",
        output=Path("O"),
        learning_rate=1e-4,
        batch_size=4,
        apply_chat_template=False,
        system_prompt="Be brief.",
        training={"adam_beta2": 0.95, "lr_scheduler_kwargs": '{"min_lr": 1e-06}'},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("a: [", "cannot be read"), ("- a", "is not a mapping"), ("", "is not a mapping")],
)
def test_a_bad_file_of_options(tmp_path, text, message):
    path = tmp_path / "npo.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        options.with_config_file(["unlearn", "--config", str(path)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensorboards_files_stay_with_the_checkpoint(config):
    """The trainer writes them below its own folder, which goes away: the hub shows those in `runs/`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = unlearn(replace(config, epochs=1, warmup=0, training={"report_to": "tensorboard", "logging_steps": 1}))
    (events,) = (output / "runs").rglob("events.out.tfevents.*")
    shown = EventAccumulator(str(events.parent)).Reload()
    steps = record(output)["steps"]
    for tag in ("loss", "forget_loss", "forget_share", "retain_loss"):
        assert [event.step for event in shown.Scalars(f"train/{tag}")] == list(range(1, steps + 1))


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_reporter_that_is_not_installed_is_named(config):
    with pytest.raises(OptionError, match=r"--report_to wandb: .*requires wandb to be installed"):
        unlearn(replace(config, training={"report_to": "wandb"}))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"eval_strategy": "epoch"}, "--eval_strategy epoch has no use here.*run lm_eval on the checkpoint"),
        (
            {"train_sampling_strategy": "group_by_length"},
            "--train_sampling_strategy group_by_length does not fit pairs",
        ),
    ],
)
def test_options_of_the_trainer_that_do_not_fit(config, training, message):
    with pytest.raises(OptionError, match=message) as caught:
        replace(config, training=training).check()
    assert "\n" not in str(caught.value)
