"""NPO and related methods on transformers' Trainer: pairs of rows, and a reference computed once.

A step takes B forget rows and, where the method has a retain term, one retain row for each, in one batch of 2B rows.
Their losses add up, so that each kind can have a forward and a backward pass of its own: then the activations of B rows
are in memory, not those of 2B. The reference's log-probabilities of the forget rows never change, so they are
computed once, before the first step, and no second model stays in memory.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import checkpoint, loss
from lm_eval_tofu.unlearn.data import AnswerCollator, Example
from lm_eval_tofu.unlearn.methods import Objective


@dataclass
class UnlearningConfig(Objective, TrainingArguments):
    """transformers' `TrainingArguments`, and what unlearning minimises."""

    def __post_init__(self) -> None:
        """Check the fields."""
        self.check()
        super().__post_init__()


class Pair(TypedDict):
    """A forget row and the retain row that goes with it in this epoch.

    Attributes:
        index: Index of the forget row.
        forget: The row to forget.
        retain: None where the method has no retain term.
    """

    index: int
    forget: Example
    retain: Example | None


class PairedRows:
    """Every forget row once an epoch, each with a retain row drawn at random, with replacement.

    The draw depends on the seed and the epoch alone: not on other random numbers, nor on devices, workers, or whether
    the run was resumed.
    """

    def __init__(self, forget: Sequence[Example], retain: Sequence[Example], seed: int) -> None:
        """Start with the pairs of epoch 0; `retain` may be empty."""
        self.forget, self.retain, self.seed = forget, retain, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the retain rows of this epoch."""
        if self.retain:
            # Two numbers into one seed: neighbouring ones must not share draws.
            digest = hashlib.sha256(f"{self.seed},{epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            self.partners = torch.randint(len(self.retain), (len(self.forget),), generator=generator).tolist()

    def __len__(self) -> int:
        """Forget rows."""
        return len(self.forget)

    def __getitem__(self, index: int) -> Pair:
        """The pair of one forget row."""
        retain = self.retain[self.partners[index]] if self.retain else None
        return Pair(index=index, forget=self.forget[index], retain=retain)


@dataclass(frozen=True, slots=True)
class PairCollator:
    """Puts B pairs into one batch: the forget rows, then their retain rows.

    Attributes:
        pad_token_id: As in `AnswerCollator`.
    """

    pad_token_id: int

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Collate pairs into the tensors of `AnswerCollator`, (2B, T) or (B, T), and the forget rows' `index`, (B,)."""
        rows = [pair["forget"] for pair in pairs]
        rows += [pair["retain"] for pair in pairs if pair["retain"] is not None]
        index = torch.tensor([pair["index"] for pair in pairs])
        return {**AnswerCollator(self.pad_token_id)(rows), "index": index}


class Terms(NamedTuple):
    """Sums over the rows of one or more batches, and what to divide them by; each a scalar tensor.

    Attributes:
        forget: Sum of the forget rows' losses.
        retain: Sum of the retain rows' losses.
        nll: Sum of the retain answers' negative log-likelihoods, nats.
        shift: Sum of the forget answers' log pi - log pi_ref, nats.
        forget_rows: Number of forget rows.
        forget_tokens: Number of their answer tokens.
        retain_tokens: Number of the retain rows' answer tokens.
    """

    forget: Tensor
    retain: Tensor
    nll: Tensor
    shift: Tensor
    forget_rows: Tensor
    forget_tokens: Tensor
    retain_tokens: Tensor


class UnlearningTrainer(Trainer):
    """Unlearns `forget` and keeps `retain`; everything else is transformers' Trainer.

    It logs, as means since the last log: `forget_loss` and `retain_loss`, the two terms with their weights, which add
    up to `loss`; `retain_nll`, the retain answers' negative log-likelihood in nats per token whatever the retain loss;
    and `forget_share`, the share of the forget answers' probability that is left, exp of the mean over their tokens of
    log pi - log pi_ref: 1 at the start, towards 0 as they are forgotten.
    """

    def __init__(
        self,
        model: Any,
        args: UnlearningConfig,
        forget: Sequence[Example],
        retain: Sequence[Example],
        pad_token_id: int,
        *,
        weights: str | None = None,
        **more: Any,
    ) -> None:
        """Prepare training.

        Args:
            model: The model as it is before unlearning, which is the reference; a PEFT model's without its adapters.
            args: All settings.
            forget: Tokenized rows to forget.
            retain: Tokenized rows to keep; not used by a method without retain term.
            pad_token_id: What fills a batch.
            weights: A name for the model's weights, `checkpoint.fingerprint` of them, if it is known already.
            **more: Further arguments of `Trainer`, for example `callbacks`.
        """
        if args.dataloader_persistent_workers and args.dataloader_num_workers:
            raise OptionError(
                "--dataloader_persistent_workers would reuse the first epoch's pairs in every epoch: remove this option"
            )
        if args.n_gpu > 1:
            raise OptionError(
                f"{args.n_gpu} GPUs in one process are not supported: start one process each with accelerate launch, "
                "or choose one with CUDA_VISIBLE_DEVICES"
            )
        if args.has_retain_rows and not retain:
            raise OptionError(f"--alpha {args.alpha} weights retain rows, but there are none: give some, or --alpha 0")
        rows = PairedRows(forget, retain if args.has_retain_rows else (), args.seed)
        super().__init__(model=model, args=args, train_dataset=rows, data_collator=PairCollator(pad_token_id), **more)
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded and args.joint_pass is False:
            raise OptionError("--joint_pass false is not possible with FSDP or DeepSpeed: leave it out")
        self._joint = sharded if args.joint_pass is None else args.joint_pass
        # `compute_loss` divides by what the whole step has, over all its batches and devices: the Trainer must not
        # divide once more.
        self.model_accepts_loss_kwargs = True
        self.rows, self.pad_token_id = rows, pad_token_id
        self._terms: Terms | None = None
        self._weights = weights
        self._frozen: Any = None
        self.reference_logprobs = torch.empty(0)
        bare = self.accelerator.unwrap_model(self.model)
        self._adapters = bare if hasattr(bare, "disable_adapter") else None
        if args.needs_reference_model and self._adapters is None:
            if sharded:
                raise OptionError(
                    "--retain_loss kl and --precompute_reference false keep a copy of the whole model, which is not "
                    "sharded: use LoRA (--lora-r), or leave them out"
                )
            self._frozen = copy.deepcopy(bare).requires_grad_(False).eval()
        if args.precompute_reference and self._weights is None:
            self._weights = checkpoint.fingerprint(checkpoint.parameter_digests(bare))
        self.add_callback(_ReferenceAndPairing(self))

    # The reference

    def compute_reference(self) -> Tensor:
        """log pi_ref of each forget row: from the cache, or from the model as it is now.

        Every process computes all rows: a few seconds, and the values do not depend on the number of devices.

        Returns:
            Shape (forget rows,), float32, nats.

        Raises:
            OptionError: The run was resumed, and the cache of its beginning is lost.
        """
        path = self.reference_path()
        known = [_read(path, len(self.rows)) if self.is_world_process_zero() else None]
        broadcast_object_list(known)
        if known[0] is not None:
            return torch.tensor(known[0], dtype=torch.float32, device=self.args.device)
        if self.state.global_step:
            raise OptionError(
                f"--output: {path} of the interrupted run is missing or damaged, and cannot be computed from weights "
                f"that have changed since: delete {self.args.output_dir} to start anew"
            )
        # Rows of like length together: less padding.
        order = sorted(range(len(self.rows)), key=lambda index: len(self.rows.forget[index]["input_ids"]))
        size = 2 * self.args.per_device_train_batch_size
        values = torch.empty(len(order), device=self.args.device)
        collate = AnswerCollator(self.pad_token_id)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            inputs = self._prepare_inputs(collate([self.rows.forget[index] for index in batch]))
            tokens = loss.answer_tokens(inputs["labels"])
            with self.compute_loss_context_manager():
                logits = self._reference_logits(self.model_wrapped, inputs, tokens)
                values[batch] = loss.answer_logprobs(logits, tokens)
        if self.is_world_process_zero():
            _write(path, values.tolist())
        return values

    def reference_path(self) -> Path:
        """The file of the reference's log-probabilities, named by all that they depend on."""
        # The tokens stand for data, tokenizer and template.
        content = [self._weights, self.args.mixed_precision, self.rows.forget]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        return Path(self.args.reference_cache or self.args.output_dir) / f"reference-{digest}.json"

    def _reference_logits(self, model: Any, inputs: dict[str, Tensor], tokens: loss.AnswerTokens) -> Tensor:
        with torch.no_grad(), self._reference(model) as reference:
            head = self.accelerator.unwrap_model(reference).get_output_embeddings()
            return loss.answer_logits(reference, head, inputs, tokens)

    @contextmanager
    def _reference(self, model: Any) -> Iterator[Any]:
        """The reference model in evaluation mode."""
        if self._frozen is not None:
            yield self._frozen.to(self.args.device)
            return
        was_training = model.training
        model.eval()
        try:
            if self._adapters is None:
                yield model
            else:
                with self._adapters.disable_adapter():
                    yield model
        finally:
            model.train(was_training)

    # The step

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Fetch the batches of one step, and count what its loss is to be divided by.

        Returns:
            The batches, and a float32 tensor of two: forget rows and retain answer tokens of all batches and devices.
            It replaces the Trainer's own count, which does not separate the two kinds of rows.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(2, device=self.args.device)
        for batch in batches:
            forget_rows = len(batch["index"])
            retain_tokens = loss.answer_tokens(batch["labels"]).counts[forget_rows:].sum()
            counts += torch.tensor([forget_rows, float(retain_tokens)], device=counts.device)
        return batches, self.accelerator.reduce(counts, "sum")

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch, in one pass or one for each kind of rows; returns its part of the loss."""
        if self._joint or not self.args.has_retain_rows:
            return super().training_step(model, inputs, num_items_in_batch)
        forget, retain = _split_batch(inputs)
        with self.accelerator.no_sync(model):
            first = super().training_step(model, forget, num_items_in_batch)
        return first + super().training_step(model, retain, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's part of its step's loss.

        Args:
            model: The wrapped model.
            inputs: From `PairCollator`.
            return_outputs: Not supported: there are no logits of whole rows to return.
            num_items_in_batch: From `get_batch_samples`; None: the batch is the whole step.

        Returns:
            A scalar; the mean over devices of the sum over batches is the step's loss.
        """
        if return_outputs:
            raise OptionError("evaluation during training has no logits of whole rows: run lm_eval on the checkpoint")
        terms = self._terms_of(model, inputs)
        if num_items_in_batch is None:
            forget_rows, retain_tokens = terms.forget_rows, terms.retain_tokens
        else:
            forget_rows, retain_tokens = num_items_in_batch
        self._terms = _add(self._terms, terms)
        total = self.args.gamma * terms.forget / forget_rows
        if self.args.has_retain_rows:
            total = total + self.args.alpha * terms.retain / retain_tokens
        # Data-parallel wrappers average gradients over processes, but this is a part of a sum.
        return total * (1 if num_items_in_batch is None else self.accelerator.num_processes)

    def _terms_of(self, model: Any, inputs: dict[str, Tensor]) -> Terms:
        tokens = loss.answer_tokens(inputs["labels"])
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        reference_logits = None
        if self.args.needs_reference_model:
            reference_logits = self._reference_logits(model, inputs, tokens)
        logits = loss.answer_logits(model, head, inputs, tokens)
        logprobs = loss.answer_logprobs(logits, tokens)
        count = len(inputs["index"])
        if self.args.precompute_reference:
            # Looked up here rather than carried in the batch, whose floats DeepSpeed rounds to the model's type.
            reference = self.reference_logprobs[inputs["index"]]
        else:
            reference = loss.answer_logprobs(reference_logits, tokens)[:count]
        nll = loss.retain_nll(logprobs)[count:]
        retain = nll
        if reference_logits is not None and self.args.has_retain_rows and self.args.retain_loss == "kl":
            first = int(tokens.counts[:count].sum())
            retain = loss.retain_kl(logits[first:], reference_logits[first:], tokens.after(count))
        return Terms(
            forget=self._forget_losses(logprobs[:count], reference, tokens.counts[:count]).sum(),
            retain=retain.sum(),
            nll=nll.detach().sum(),
            shift=(logprobs[:count].detach() - reference).sum(),
            forget_rows=logprobs.new_tensor(count),
            forget_tokens=tokens.counts[:count].sum(),
            retain_tokens=tokens.counts[count:].sum(),
        )

    def _forget_losses(self, logprobs: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
        match self.args.method:
            case "npo":
                return loss.npo_loss(logprobs, reference, self.args.beta)
            case "simnpo":
                return loss.simnpo_loss(logprobs, counts, self.args.beta, self.args.margin)
            case "grad_ascent" | "grad_diff":
                return loss.gradient_ascent_loss(logprobs, counts)
            case method:
                raise OptionError(f"--method {method!r} has no loss: use one of npo, simnpo, grad_ascent, grad_diff")

    # What is logged

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add both terms and the share of forget probability left to the Trainer's own log."""
        if "loss" in logs and self._terms is not None:
            sums = torch.stack([term.detach().double().to(self.args.device) for term in self._terms])
            terms = Terms(*self.accelerator.reduce(sums, "sum"))
            logs["forget_loss"] = float(self.args.gamma * terms.forget / terms.forget_rows)
            logs["forget_share"] = float((terms.shift / terms.forget_tokens).exp())
            if self.args.has_retain_rows:
                logs["retain_loss"] = float(self.args.alpha * terms.retain / terms.retain_tokens)
                logs["retain_nll"] = float(terms.nll / terms.retain_tokens)
            self._terms = None
        super().log(logs, start_time)


class _ReferenceAndPairing(TrainerCallback):
    """Computes the reference's log-probabilities before the first step, and draws retain rows anew each epoch."""

    def __init__(self, trainer: UnlearningTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: UnlearningConfig, state: Any, control: Any, **_: Any) -> None:
        if args.precompute_reference:
            self.trainer.reference_logprobs = self.trainer.compute_reference()

    def on_epoch_begin(self, args: UnlearningConfig, state: Any, control: Any, **_: Any) -> None:
        self.trainer.rows.set_epoch(int(state.epoch))


def _split_batch(inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The forget rows of a batch and its retain rows, each cut to the length of its longest row."""
    parts, count = [], len(inputs["index"])
    for rows, index in ((slice(count), inputs["index"]), (slice(count, None), inputs["index"][:0])):
        longest = int(inputs["attention_mask"][rows].sum(dim=1).max())
        part = {name: tensor[rows, :longest] for name, tensor in inputs.items() if name != "index"}
        parts.append({**part, "index": index})
    return parts[0], parts[1]


def _add(sums: Terms | None, terms: Terms) -> Terms:
    each = [term.detach() for term in terms]
    return Terms(*each) if sums is None else Terms(*(old + new for old, new in zip(sums, each, strict=True)))


def _read(path: Path, count: int) -> list[float] | None:
    """The file's values, or None where it is not there; a damaged one is computed anew."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["logprobs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return values if isinstance(values, list) and len(values) == count else None


def _write(path: Path, values: Sequence[float]) -> None:
    try:
        files.write_json(path, {"logprobs": values})
    except OSError as error:
        raise OptionError(
            f"--reference_cache {path.parent} cannot be written ({error}): name another directory"
        ) from error
