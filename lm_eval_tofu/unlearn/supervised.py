"""Supervised fine-tuning on transformers' Trainer, with the vocabulary projection where an answer needs it."""

from typing import Any

from torch import Tensor
from transformers import Trainer

from lm_eval_tofu.unlearn import loss


class AnswerTrainer(Trainer):
    """transformers' Trainer with the same loss, made of the answer tokens' logits alone.

    The loss is the mean negative log-likelihood of the answer tokens of a step, in nats per token.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take what `Trainer` takes."""
        super().__init__(*arguments, **named)
        # `compute_loss` divides by the tokens of the whole step: the Trainer must not divide once more.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's part of its step's loss.

        Args:
            model: The wrapped model.
            inputs: From `lm_eval_tofu.unlearn.data.AnswerCollator`.
            return_outputs: Also the model's output, with the logits of all tokens: the Trainer's own way is taken.
            num_items_in_batch: Answer tokens of the whole step; None: the batch is the whole step.

        Returns:
            A scalar, or with `return_outputs` that and the model's output.
        """
        # Several GPUs in one process cut a batch in parts after the answer tokens' positions are computed.
        if return_outputs or self.args.n_gpu > 1:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        tokens = loss.answer_tokens(inputs["labels"])
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        total = -loss.answer_logprobs(loss.answer_logits(model, head, inputs, tokens), tokens).sum()
        if num_items_in_batch is None:
            return total / len(tokens)
        # Data-parallel wrappers average gradients over processes, but this is a part of a sum over all of them.
        parts = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return total / num_items_in_batch * parts
