"""The losses against numbers derived by hand, and the log-probabilities against the usual way to compute them."""

import math

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import loss
from lm_eval_tofu.unlearn.data import IGNORED, AnswerCollator

VOCABULARY = 50
PAD = END = 2
"""Padding is the end of turn, as in most chat models."""

ROWS = [
    {"input_ids": [5, 6, END, 7, 8, END], "labels": [IGNORED] * 3 + [7, 8, END]},
    {"input_ids": [9, END, 11, END], "labels": [IGNORED] * 2 + [11, END]},
    {"input_ids": [3, 4, END, 12, 13, 14, 15, END], "labels": [IGNORED] * 3 + [12, 13, 14, 15, END]},
]


@pytest.fixture(scope="module")
def model():
    """A Llama of two layers with random weights, wide enough to have opinions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        # Not PAD: transformers freezes the embedding of a configuration's padding token.
        pad_token_id=None,
        eos_token_id=END,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def logprobs(model, inputs):
    tokens = loss.answer_tokens(inputs["labels"])
    logits = loss.answer_logits(model, model.get_output_embeddings(), inputs, tokens)
    return loss.answer_logprobs(logits, tokens)


def one_by_one(model, row):
    """The usual way: one row, no padding, log-softmax of all logits, pick the answer's tokens."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(dim=-1)
    pairs = [(place, label) for place, label in enumerate(row["labels"]) if label != IGNORED]
    return sum(logits[place - 1, label] for place, label in pairs)


# Where the answer is


def test_answer_tokens_are_predicted_one_position_before_them():
    """Row 0 has labels at 2 and 3, so positions 1 and 2 predict them; row 1 at 1 and 2, so 4 + 0 and 4 + 1 do."""
    found = loss.answer_tokens(torch.tensor([[-100, -100, 7, 2], [-100, 9, 2, -100]]))
    assert found.positions.tolist() == [1, 2, 4, 5]
    assert found.targets.tolist() == [7, 2, 9, 2]
    assert found.rows.tolist() == [0, 0, 1, 1]
    assert found.counts.tolist() == [2, 2]
    assert len(found) == 4
    assert [part.tolist() for part in found.after(1)] == [[4, 5], [9, 2], [0, 0], [2]]


def test_a_label_in_the_first_column_has_nothing_that_predicts_it():
    assert loss.answer_tokens(torch.tensor([[7, 2]])).targets.tolist() == [2]


# Log-probabilities


def test_logprobs_by_hand():
    """Logits (0, ln 3) give probabilities (1/4, 3/4).

    A row that answers 1 then 0 has log-probability ln(3/4) + ln(1/4) = ln(3/16); one that answers 1 has ln(3/4).
    """
    tokens = loss.answer_tokens(torch.tensor([[IGNORED, 1, 0], [IGNORED, 1, IGNORED]]))
    logits = torch.tensor([[0.0, math.log(3)]]).expand(3, 2)
    found = loss.answer_logprobs(logits, tokens)
    torch.testing.assert_close(found, torch.tensor([math.log(3 / 16), math.log(3 / 4)]))


def test_logprobs_are_those_of_each_row_alone(model):
    with torch.no_grad():
        found = logprobs(model, AnswerCollator(PAD)(ROWS))
    torch.testing.assert_close(found, torch.stack([one_by_one(model, row) for row in ROWS]), atol=1e-5, rtol=1e-6)


def test_batch_composition_and_padding_side_change_nothing(model):
    with torch.no_grad():
        together = logprobs(model, AnswerCollator(PAD)(ROWS))
        for number, row in enumerate(ROWS):
            alone = AnswerCollator(PAD)([row])
            torch.testing.assert_close(logprobs(model, alone)[0], together[number], atol=1e-5, rtol=1e-6)
            left = {
                "input_ids": nn.functional.pad(alone["input_ids"], (3, 0), value=PAD),
                "labels": nn.functional.pad(alone["labels"], (3, 0), value=IGNORED),
                "attention_mask": nn.functional.pad(alone["attention_mask"], (3, 0), value=0),
            }
            torch.testing.assert_close(logprobs(model, left)[0], together[number], atol=1e-5, rtol=1e-6)
        turned = logprobs(model, AnswerCollator(PAD)(ROWS[::-1]))
    torch.testing.assert_close(turned.flip(0), together, atol=1e-5, rtol=1e-6)


def test_the_end_of_turn_inside_the_prompt_is_attended_to_where_it_is_the_padding_too(model):
    """Hiding the prompt's own end-of-turn tokens, as a mask made of token values does, gives another number."""
    inputs = AnswerCollator(PAD)(ROWS)
    assert inputs["attention_mask"].sum(dim=1).tolist() == [len(row["input_ids"]) for row in ROWS]
    hidden = {**inputs, "attention_mask": (inputs["input_ids"] != PAD).long()}
    with torch.no_grad():
        assert (logprobs(model, inputs) - logprobs(model, hidden)).abs().min() > 1e-3


def test_only_answer_tokens_count(model):
    """Another prompt token changes what the answer is conditioned on; a label outside the answer must not count."""
    tokens = loss.answer_tokens(AnswerCollator(PAD)(ROWS)["labels"])
    assert len(tokens) == 3 + 2 + 5
    logits = torch.randn(len(tokens), VOCABULARY, requires_grad=True)
    loss.answer_logprobs(logits, tokens)[0].backward()
    assert logits.grad is not None
    assert logits.grad[:3].abs().sum(dim=1).gt(0).all()
    assert logits.grad[3:].abs().sum() == 0


def test_the_head_sees_answer_positions_only(model):
    seen = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, arguments, output: seen.append(output.shape))
    inputs = AnswerCollator(PAD)(ROWS)
    tokens = loss.answer_tokens(inputs["labels"])
    with torch.no_grad():
        loss.answer_logits(model, head, inputs, tokens)
        handle.remove()
        assert seen == [(10, VOCABULARY)]
        assert model(**inputs).logits.shape == (3, 8, VOCABULARY), "the model is as it was"


def test_only_padding_on_the_right_needs_no_mask(model, monkeypatch):
    """A row padded on the left, or with a hole, keeps its mask; rows without padding need none."""
    seen = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda attention_mask=None, **more: seen.append(attention_mask) or forward(**more)
    )
    for mask in ([[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [0, 1, 1]], [[1, 0, 1], [1, 1, 0]]):
        tokens = torch.tensor([[5, 6, 7], [5, 6, END]])
        inputs = {"input_ids": tokens, "attention_mask": torch.tensor(mask)}
        with torch.no_grad():
            loss.answer_logits(model, model.get_output_embeddings(), inputs, loss.answer_tokens(tokens))
    assert [mask is None for mask in seen] == [True, True, False, False]


def test_a_model_that_does_not_use_its_head_is_refused(model):
    inputs = AnswerCollator(PAD)(ROWS)
    tokens = loss.answer_tokens(inputs["labels"])
    with pytest.raises(OptionError, match="--model: the architecture LlamaForCausalLM does not project"):
        loss.answer_logits(model, nn.Linear(32, VOCABULARY), inputs, tokens)


def test_float32_whatever_the_type_of_the_logits():
    """300 tokens of probability 1/50 each: bfloat16's 8 bits would lose all but the first two digits of the sum."""
    tokens = loss.answer_tokens(torch.tensor([[IGNORED, *[1] * 300]]))
    found = loss.answer_logprobs(torch.zeros(300, VOCABULARY, dtype=torch.bfloat16), tokens)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(-300 * math.log(VOCABULARY), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_logprobs_and_their_gradient_are_cross_entropys(dtype, count):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (1, count + 1), generator=generator)
    tokens = loss.answer_tokens(ids)
    logits = (5 * torch.randn(count, VOCABULARY, generator=generator)).to(dtype).requires_grad_()
    usual = logits.detach().clone().requires_grad_()
    ours = loss.answer_logprobs(logits, tokens).sum()
    theirs = -nn.functional.cross_entropy(
        usual.to(torch.promote_types(dtype, torch.float32)), tokens.targets, reduction="sum"
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    # Squared, so that the gradient that comes in is not 1.
    (ours**2).backward()
    (theirs**2).backward()
    torch.testing.assert_close(logits.grad, usual.grad, atol=1e-3, rtol=1e-4 if dtype != torch.bfloat16 else 1e-2)


def test_a_constant_added_to_all_logits_changes_nothing():
    """Raw logits in the place of log-probabilities, a known fault of NPO code, would move with it."""
    tokens = loss.answer_tokens(AnswerCollator(PAD)(ROWS)["labels"])
    logits = torch.randn(len(tokens), VOCABULARY, generator=torch.Generator().manual_seed(0))
    reference = torch.tensor([-3.0, -4.0, -5.0])
    one, other = (
        loss.npo_loss(loss.answer_logprobs(each, tokens), reference, beta=0.1) for each in (logits, logits + 7)
    )
    torch.testing.assert_close(one, other)
    kl = loss.retain_kl(logits, logits + 7, tokens)
    torch.testing.assert_close(kl, torch.zeros(3), atol=1e-5, rtol=0)


# NPO and its kin


@pytest.mark.parametrize("beta", [0.01, 0.05, 0.1, 0.5, 1.0, 5.0])
def test_npo_at_the_reference_is_2_ln_2_over_beta(beta):
    """log pi = log pi_ref, so -(2/beta) log sigmoid(0) = -(2/beta) ln(1/2)."""
    same = torch.tensor([-12.5, -80.0])
    torch.testing.assert_close(loss.npo_loss(same, same, beta), torch.full((2,), 2 * math.log(2) / beta))


def test_npo_by_hand():
    """With beta = 1 and log pi - log pi_ref = ln 3: -2 log sigmoid(-ln 3) = -2 ln(1 / (1 + 3)) = 4 ln 2.

    With -ln 3 the answer has lost two thirds of its probability: -2 ln(1 / (1 + 1/3)) = 2 ln(4/3).
    """
    reference = torch.tensor([-5.0, -5.0])
    found = loss.npo_loss(reference + torch.tensor([math.log(3), -math.log(3)]), reference, beta=1.0)
    torch.testing.assert_close(found, torch.tensor([4 * math.log(2), 2 * math.log(4 / 3)]))


def test_npo_falls_to_0_as_the_answer_is_forgotten_and_its_slope_at_the_start_is_1():
    """d/dlogp of (2/beta) log(1 + r^beta), r = pi/pi_ref, is 2 r^beta / (1 + r^beta): 1 at r = 1, whatever beta."""
    reference = torch.tensor([-10.0])
    assert loss.npo_loss(reference - 1000, reference, 0.1).item() == pytest.approx(0, abs=1e-6)
    start = reference.clone().requires_grad_()
    loss.npo_loss(start, reference, 0.3).backward()
    assert start.grad is not None
    assert start.grad.item() == pytest.approx(1)


def test_npo_tends_to_gradient_ascent():
    """(2/beta) ln(1 + e^(beta d)) = 2 ln 2 / beta + d + O(beta): what is left of the start is the ascent's own d."""
    reference, logprobs = torch.tensor([-10.0], dtype=torch.float64), torch.tensor([-11.5], dtype=torch.float64)
    beta = 1e-5
    assert loss.npo_loss(logprobs, reference, beta).item() - 2 * math.log(2) / beta == pytest.approx(-1.5, abs=1e-4)


def test_simnpo_by_hand():
    """beta = 2, log pi = -6 on 3 tokens, margin 0: -(2/2) log sigmoid(4) = ln(1 + e^-4).

    With margin 1 the sigmoid's argument is 3: ln(1 + e^-3).
    """
    logprobs, counts = torch.tensor([-6.0]), torch.tensor([3])
    torch.testing.assert_close(loss.simnpo_loss(logprobs, counts, 2.0), torch.tensor([math.log1p(math.exp(-4))]))
    torch.testing.assert_close(loss.simnpo_loss(logprobs, counts, 2.0, 1.0), torch.tensor([math.log1p(math.exp(-3))]))


def test_gradient_ascent_and_retain_likelihood_by_hand():
    """log pi = -6 on 3 tokens: ascent -2 nats a token; the retain row's negative log-likelihood is 6 nats."""
    assert loss.gradient_ascent_loss(torch.tensor([-6.0]), torch.tensor([3])).tolist() == [-2.0]
    assert loss.retain_nll(torch.tensor([-6.0])).tolist() == [6.0]


def test_retain_kl_by_hand():
    """pi_ref = (1/2, 1/2), pi = (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3) at each position.

    Row 0 has two positions, row 1 has one. The other way round it would be 1/4 ln(1/2) + 3/4 ln(3/2).
    """
    tokens = loss.answer_tokens(torch.tensor([[IGNORED, 1, 0], [IGNORED, 1, IGNORED]]))
    ours, reference = torch.tensor([[0.0, math.log(3)]]).expand(3, 2), torch.zeros(3, 2)
    found = loss.retain_kl(ours, reference, tokens)
    torch.testing.assert_close(found, torch.tensor([math.log(4 / 3), math.log(4 / 3) / 2]))


@pytest.mark.parametrize(
    "value",
    [
        lambda p, c: loss.npo_loss(p, torch.tensor([-3.0, -9.0], dtype=torch.float64), 0.7),
        lambda p, c: loss.simnpo_loss(p, c, 0.7, 0.2),
        loss.gradient_ascent_loss,
        lambda p, c: loss.retain_nll(p),
    ],
)
def test_gradients_are_finite_differences(value):
    """(L(p + h) - L(p - h)) / 2h, row by row: a row's loss depends on that row alone."""
    point, counts, step = torch.tensor([-4.0, -7.5], dtype=torch.float64), torch.tensor([3, 5]), 1e-5
    variable = point.clone().requires_grad_()
    value(variable, counts).sum().backward()
    difference = (value(point + step, counts) - value(point - step, counts)) / (2 * step)
    torch.testing.assert_close(variable.grad, difference, atol=1e-8, rtol=1e-6)


def test_gradient_through_the_model_is_a_finite_difference(model):
    """The whole way from the weights to the NPO loss: a step of length h along the gradient g changes it by h |g|."""
    double = LlamaForCausalLM(model.config).double()
    double.load_state_dict(model.state_dict())
    inputs, reference = AnswerCollator(PAD)(ROWS), torch.tensor([-10.0, -9.0, -20.0], dtype=torch.float64)

    def value() -> torch.Tensor:
        return loss.npo_loss(logprobs(double, inputs), reference, 0.1).mean()

    value().backward()
    parameters = list(double.parameters())
    length = torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
    # Llama's norms compute in float32 even in a float64 model: a shorter step would drown in their rounding.
    step, values = 1e-4, []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter in parameters:
                parameter += sign * step * parameter.grad / length
            values.append(value())
    torch.testing.assert_close(length, (values[0] - values[1]) / (2 * step), atol=0, rtol=5e-3)
