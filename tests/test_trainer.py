"""UnlearningTrainer on a Llama of two layers and rows of random tokens."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import loss
from lm_eval_tofu.unlearn.data import IGNORED, AnswerCollator
from lm_eval_tofu.unlearn.methods import METHODS
from lm_eval_tofu.unlearn.trainer import PairCollator, PairedRows, UnlearningConfig, UnlearningTrainer

PAD = 2


def rows(count, seed):
    """Rows of 4 to 15 tokens, of which the last 2 to 8 are the answer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    made = []
    for _ in range(count):
        prompt, answer = ([draw(3, 60) for _ in range(draw(2, 8))] for _ in range(2))
        made.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer})
    return made


FORGET, RETAIN = rows(8, seed=1), rows(20, seed=2)


@pytest.fixture
def model():
    return llama()


def llama(**settings):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=None,
        bos_token_id=None,
        **settings,
    )
    return LlamaForCausalLM(config)


def with_adapters(model):
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
    return get_peft_model(model, config)


@pytest.fixture
def build(tmp_path):
    """A trainer of one epoch in one step, by plain gradient descent."""

    def build(model, forget=FORGET, retain=RETAIN, weights=None, **settings):
        given = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 8,
            "num_train_epochs": 1,
            "learning_rate": 0.1,
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "use_cpu": True,
        }
        return UnlearningTrainer(model, UnlearningConfig(**{**given, **settings}), forget, retain, PAD, weights=weights)

    return build


def logged(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def usual_logprobs(model, examples):
    """Row by row, log-softmax of all logits."""
    found = []
    for row in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(dim=-1)
        pairs = [(place, label) for place, label in enumerate(row["labels"]) if label != IGNORED]
        found.append(sum(logits[place - 1, label] for place, label in pairs))
    return torch.stack(found)


# Pairs


def test_pairs_depend_on_seed_and_epoch_alone():
    def partners(seed, epoch):
        paired = PairedRows(FORGET, RETAIN, seed)
        paired.set_epoch(epoch)
        return [paired[index]["retain"] for index in range(len(paired))]

    torch.manual_seed(5)
    first = partners(0, 3)
    torch.manual_seed(6)
    assert partners(0, 3) == first
    assert partners(0, 4) != first
    assert partners(1, 3) != first
    # Neighbouring seeds and epochs are not the same draws shifted.
    assert partners(1, 2) != first


def test_every_retain_row_comes_up():
    paired, seen = PairedRows(FORGET, RETAIN, seed=0), set()
    for epoch in range(40):
        paired.set_epoch(epoch)
        seen |= set(paired.partners)
    assert seen == set(range(len(RETAIN)))


def test_collator_puts_retain_rows_after_forget_rows():
    pairs = [
        {
            "index": 3,
            "forget": {"input_ids": [5, 2, 7], "labels": [-100, -100, 7]},
            "retain": {"input_ids": [6, 9, 8, 2], "labels": [-100, -100, 8, 2]},
        },
        {
            "index": 0,
            "forget": {"input_ids": [4, 2], "labels": [-100, 2]},
            "retain": {"input_ids": [3, 2], "labels": [-100, 2]},
        },
    ]
    assert {name: tensor.tolist() for name, tensor in PairCollator(PAD)(pairs).items()} == {
        "input_ids": [[5, 2, 7, 2], [4, 2, 2, 2], [6, 9, 8, 2], [3, 2, 2, 2]],
        "labels": [[-100, -100, 7, -100], [-100, 2, -100, -100], [-100, -100, 8, 2], [-100, 2, -100, -100]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]],
        "index": [3, 0],
    }


# The loss of a step


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 2.0])
def test_the_first_step_starts_at_2_ln_2_over_beta(model, build, beta):
    """gamma x 2 ln 2 / beta + alpha x the mean over the drawn rows' answer tokens of -log p."""
    trainer = build(model, beta=beta, gamma=3.0, alpha=2.0)
    drawn = [RETAIN[partner] for partner in trainer.rows.partners]
    tokens = sum(label != IGNORED for row in drawn for label in row["labels"])
    nll = -float(usual_logprobs(model, drawn).sum()) / tokens
    trainer.train()
    [entry] = logged(trainer)
    assert entry["forget_loss"] == pytest.approx(3 * 2 * math.log(2) / beta, rel=1e-6)
    assert entry["retain_nll"] == pytest.approx(nll, rel=1e-5)
    assert entry["retain_loss"] == pytest.approx(2 * nll, rel=1e-5)
    # The Trainer rounds.
    assert entry["loss"] == pytest.approx(entry["forget_loss"] + entry["retain_loss"], abs=1e-3)
    assert entry["forget_share"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_moves_every_parameter_and_forgets(model, build, method):
    before = copy.deepcopy(model)
    trainer = build(model, method=method, num_train_epochs=3, learning_rate=0.02)
    trainer.train()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before.get_parameter(name)), name
    assert usual_logprobs(model, FORGET).sum() < usual_logprobs(before, FORGET).sum() - 1
    entries = logged(trainer)
    assert entries[-1]["forget_share"] < 1
    assert ("retain_loss" in entries[0]) == (method != "grad_ascent")


def test_forget_share_is_the_geometric_mean_of_what_is_left_of_each_tokens_probability(model, build):
    before = copy.deepcopy(model)
    trainer = build(model, num_train_epochs=2, learning_rate=0.02)
    trainer.train()
    # What the second step logs is the state after the first.
    after_one = copy.deepcopy(before)
    one = build(after_one, learning_rate=0.02)
    one.train()
    tokens = sum(label != IGNORED for row in FORGET for label in row["labels"])
    shift = (usual_logprobs(after_one, FORGET) - usual_logprobs(before, FORGET)).sum() / tokens
    assert logged(trainer)[1]["forget_share"] == pytest.approx(float(shift.exp()), rel=1e-5)


def test_alpha_0_looks_at_no_retain_row(model, build):
    trainer = build(model, alpha=0.0, retain=[])
    trainer.train()
    assert "retain_loss" not in logged(trainer)[0]


@pytest.mark.parametrize("settings", [{}, {"method": "grad_diff"}, {"method": "simnpo"}, {"retain_loss": "kl"}])
def test_accumulation_1_x_4_is_4_x_1(build, settings):
    """Two epochs in two steps each, the last of two rows alone: rows of all lengths, so means of means would differ."""
    forget, weights = FORGET[:6], []
    for batch, accumulation in ((4, 1), (1, 4), (2, 2)):
        model = llama()
        trainer = build(
            model,
            forget=forget,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=2,
            learning_rate=0.02,
            **settings,
        )
        trainer.train()
        assert trainer.state.global_step == 4
        weights.append(model.state_dict())
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"retain_loss": "kl"}, {"gradient_accumulation_steps": 2}])
def test_one_pass_after_the_other_is_one_joint_pass(build, settings):
    results = []
    for joint in (True, False):
        model = llama()
        size = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 0.02}
        trainer = build(model, joint_pass=joint, **size, **settings)
        seen = []
        model.register_forward_pre_hook(
            lambda _, arguments, inputs, seen=seen: seen.append(len(inputs["input_ids"])), with_kwargs=True
        )
        trainer.train()
        assert seen[-2:] == [8, 8] if joint else [4, 4]
        results.append((logged(trainer), model.state_dict()))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        for name in ("loss", "forget_loss", "retain_loss", "forget_share", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    for name, tensor in results[0][1].items():
        torch.testing.assert_close(tensor, results[1][1][name], atol=1e-5, rtol=1e-4)


# The reference


def test_cached_reference_is_the_live_one(model, build, tmp_path):
    start = copy.deepcopy(model)
    expected = usual_logprobs(start, FORGET)
    cached = build(model, num_train_epochs=3, learning_rate=0.02)
    cached.train()
    torch.testing.assert_close(cached.reference_logprobs, expected, atol=1e-5, rtol=1e-6)
    live_model = copy.deepcopy(start)
    live = build(live_model, num_train_epochs=3, learning_rate=0.02, precompute_reference=False)
    live.train()
    for one, other in zip(logged(cached), logged(live), strict=True):
        for name in ("forget_loss", "retain_loss", "forget_share"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), name
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, live_model.get_parameter(name), atol=1e-5, rtol=1e-4)


def test_the_cache_is_read_and_depends_on_weights_and_rows(model, build, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = build(copy.deepcopy(model), reference_cache=str(cache))
    first.train()
    [path] = cache.iterdir()
    assert path == first.reference_path()

    again = build(copy.deepcopy(model), reference_cache=str(cache))
    with monkeypatch.context() as patched:
        patched.setattr(again, "_reference_logits", lambda *_: pytest.fail("the cache was not used"))
        again.train()
    assert torch.equal(first.reference_logprobs, again.reference_logprobs)

    assert build(model, forget=FORGET[:7], reference_cache=str(cache)).reference_path() != path
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert build(model, reference_cache=str(cache)).reference_path() != path

    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    mended = build(llama(), reference_cache=str(cache))
    mended.train()
    assert json.loads(path.read_text(encoding="utf-8"))["logprobs"] == first.reference_logprobs.tolist()


def test_the_reference_is_computed_in_evaluation_mode(build):
    model = llama(attention_dropout=0.5)
    model.train()
    expected = usual_logprobs(model.eval(), FORGET)
    model.train()
    trainer = build(model)
    trainer.train()
    torch.testing.assert_close(trainer.reference_logprobs, expected, atol=1e-5, rtol=1e-6)


def test_one_model_in_memory_which_looks_at_each_row_once_a_step(model, build):
    trainer = build(model, num_train_epochs=2)
    assert trainer._frozen is None
    seen = []
    model.register_forward_pre_hook(
        lambda module, _, inputs: seen.append((module.training, len(inputs["input_ids"]))), with_kwargs=True
    )
    trainer.train()
    assert seen == [(False, 8), *[(True, 8)] * 4], "a batch for the reference, two for each of two steps"


def test_kl_is_0_at_the_start_and_its_copy_stays(model, build):
    before = copy.deepcopy(model)
    trainer = build(model, retain_loss="kl", num_train_epochs=2, learning_rate=0.02)
    trainer.train()
    first, second = logged(trainer)
    assert first["retain_loss"] == pytest.approx(0, abs=1e-6)
    assert second["retain_loss"] > 1e-4
    assert first["retain_nll"] > 1
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, trainer._frozen.get_parameter(name))


# LoRA


def test_lora_trains_adapters_only_and_needs_no_copy(model, build):
    before = copy.deepcopy(model)
    trainer = build(with_adapters(model), retain_loss="kl", num_train_epochs=3)
    assert trainer._frozen is None
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        if ".lora_B." in name:
            assert parameter.abs().sum() > 0, name
    with trainer.model.disable_adapter():
        torch.testing.assert_close(usual_logprobs(trainer.model, FORGET), usual_logprobs(before, FORGET))
    assert logged(trainer)[0]["retain_loss"] == pytest.approx(0, abs=1e-6)
    assert logged(trainer)[-1]["forget_share"] < 1


@pytest.mark.parametrize("precompute", [True, False])
def test_loras_reference_has_its_adapters_off(model, build, precompute):
    """Adapters that already do something: with them the reference would be the trained model itself, the shift 0."""
    expected = usual_logprobs(copy.deepcopy(model).eval(), FORGET)
    adapted = with_adapters(model)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.1)
    tokens = sum(label != IGNORED for row in FORGET for label in row["labels"])
    shift = float((usual_logprobs(adapted, FORGET) - expected).sum()) / tokens
    trainer = build(adapted, precompute_reference=precompute)
    trainer.train()
    assert logged(trainer)[0]["forget_share"] == pytest.approx(math.exp(shift), rel=1e-4)
    assert abs(shift) > 0.1


def test_lora_with_gradient_checkpointing_is_lora(build):
    states = []
    for checkpointing in (False, True):
        trainer = build(with_adapters(llama()), num_train_epochs=2, gradient_checkpointing=checkpointing)
        trainer.train()
        states.append({name: p for name, p in trainer.model.named_parameters() if p.requires_grad})
    for name, parameter in states[0].items():
        torch.testing.assert_close(parameter, states[1][name], atol=1e-6, rtol=1e-5)


# Batches of real rows


def test_a_batch_is_what_the_loss_module_makes_of_its_rows(model, build):
    """The trainer's terms are the loss functions' values on forget and retain rows run apart."""
    trainer = build(model, beta=0.3)
    trainer.reference_logprobs = torch.linspace(-30, -10, len(FORGET))
    batch = PairCollator(PAD)([trainer.rows[index] for index in (5, 0, 2)])
    with torch.no_grad():
        terms = trainer._terms_of(model, batch)

    def apart(examples):
        inputs = AnswerCollator(PAD)(examples)
        tokens = loss.answer_tokens(inputs["labels"])
        with torch.no_grad():
            return loss.answer_logprobs(loss.answer_logits(model, model.lm_head, inputs, tokens), tokens)

    forget = apart([FORGET[index] for index in (5, 0, 2)])
    retain = apart([RETAIN[trainer.rows.partners[index]] for index in (5, 0, 2)])
    expected = loss.npo_loss(forget, trainer.reference_logprobs[[5, 0, 2]], 0.3).sum()
    torch.testing.assert_close(terms.forget, expected, atol=1e-4, rtol=1e-6)
    torch.testing.assert_close(terms.retain, -retain.sum(), atol=1e-4, rtol=1e-6)
    assert (int(terms.forget_rows), int(terms.forget_tokens) > 0) == (3, True)


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "--method 'magic' is unknown: use one of npo, simnpo, grad_ascent, grad_diff"),
        ({"beta": 0.0}, "--beta 0.0 is not above 0"),
        ({"beta": math.nan}, "--beta nan is not above 0"),
        ({"gamma": 0.0}, "--gamma 0.0 is not above 0"),
        ({"alpha": -1.0}, "--alpha -1.0 is below 0"),
        ({"margin": math.inf}, "--margin inf is not a number"),
        ({"retain_loss": "mse"}, "--retain_loss 'mse' is unknown: use one of nll, kl"),
        ({"retain": []}, "--alpha 1.0 weights retain rows, but there are none"),
        ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "--dataloader_persistent_workers"),
    ],
)
def test_bad_settings(model, build, settings, message):
    with pytest.raises(OptionError) as caught:
        build(model, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_without_a_loss_trains_nothing(model, build, monkeypatch):
    """A method that is added to the list and not to the step must not train something else."""
    monkeypatch.setitem(METHODS, "magic", "a method of tomorrow")
    with pytest.raises(OptionError, match="--method 'magic' has no loss: use one of npo, simnpo, grad_ascent"):
        build(model, method="magic").train()
