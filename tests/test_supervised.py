"""Fine-tuning's loss is transformers' own, whatever the batch is a part of."""

import pytest
import torch
from test_loss import END, PAD, ROWS, model
from transformers import Trainer, TrainingArguments

from lm_eval_tofu.unlearn.data import IGNORED, AnswerCollator
from lm_eval_tofu.unlearn.supervised import AnswerTrainer

__all__ = ["model"]


@pytest.fixture
def trainers(model, tmp_path):
    """Transformers' own and ours, on one model."""
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", per_device_train_batch_size=2
    )
    return [
        kind(model, arguments, data_collator=AnswerCollator(PAD), train_dataset=ROWS)
        for kind in (Trainer, AnswerTrainer)
    ]


@pytest.mark.parametrize("count", [None, 10, 25])
def test_loss_and_gradient_are_the_trainers_own(model, trainers, count):
    """`count`: the answer tokens of the whole step, of which the batch's 10 may be all or a part."""
    found = []
    for trainer in trainers:
        model.zero_grad()
        items = None if count is None else torch.tensor(count)
        value = trainer.compute_loss(model, AnswerCollator(PAD)(ROWS), num_items_in_batch=items)
        value.backward()
        found.append((value.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    (theirs, their_gradients), (ours, our_gradients) = found
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(our_gradients, their_gradients, atol=1e-6, rtol=1e-5)


def test_the_batch_counts_by_its_tokens_not_by_its_rows(model, trainers):
    """Two rows of 2 and 5 answer tokens: the mean over 7 tokens, not the mean of two means."""
    rows = ROWS[1:]
    means = [trainers[1].compute_loss(model, AnswerCollator(PAD)([row])).item() for row in rows]
    both = trainers[1].compute_loss(model, AnswerCollator(PAD)(rows)).item()
    assert both == pytest.approx((2 * means[0] + 5 * means[1]) / 7, rel=1e-5)
    assert abs(both - sum(means) / 2) > 1e-3


def test_with_outputs_the_logits_are_those_of_all_tokens(model, trainers):
    rows = [{"input_ids": [5, 6, 7, END], "labels": [IGNORED, IGNORED, 7, END]}]
    value, outputs = trainers[1].compute_loss(model, AnswerCollator(PAD)(rows), return_outputs=True)
    assert outputs.logits.shape[:2] == (1, 4)
    assert value.item() == pytest.approx(trainers[1].compute_loss(model, AnswerCollator(PAD)(rows)).item(), rel=1e-5)
