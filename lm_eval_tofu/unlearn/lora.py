"""Attaches LoRA adapters before training, and merges them into the weights after it.

Unlearning's updates are small: a weight of 0.05 in bfloat16 has neighbours 0.0002 away, so that rounding the merged
weights can undo most of what was learned. Merging is therefore done in float32, the weights are rounded once, and what
is lost by that is measured, recorded and warned of.
"""

import importlib.util
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import checkpoint
from lm_eval_tofu.unlearn.models import load_model
from lm_eval_tofu.unlearn.options import flag, option

if TYPE_CHECKING:
    from lm_eval_tofu.unlearn.data import Example

log = logging.getLogger(__name__)

ADAPTERS = "adapters"
"""Folder in a merged checkpoint that keeps the adapters where merging lost a part of the update."""

_CHECKED_ROWS = 32
_TOLERATED = 0.05
"""Share of the update, or of its effect on the loss, that may be lost without a warning."""


@dataclass(kw_only=True)
class LoraOptions:
    """Whether to train adapters instead of all weights."""

    lora_r: int | None = field(
        default=None, metadata=option("train LoRA adapters of this rank instead of all weights", metavar="R")
    )
    lora_alpha: float | None = field(
        default=None, metadata=option("the adapters' scale is this divided by R (default: 2 R)", metavar="A")
    )
    lora_target: str | None = field(
        default=None,
        metadata=option(
            "names of the modules that get adapters, joined by commas (default: all linear layers but the head)",
            metavar="NAMES",
        ),
    )
    lora_merge: bool = field(
        default=True, metadata=option("write the model with the adapters merged in; off: the adapters alone")
    )

    def check(self) -> None:
        """Refuse values that cannot be used."""
        if self.lora_r is None:
            for name in ("lora_alpha", "lora_target"):
                if getattr(self, name) is not None:
                    raise OptionError(
                        f"{flag(name)} {getattr(self, name)} has no use without --lora-r: give a rank, such as 16"
                    )
            if not self.lora_merge:
                raise OptionError("--no-lora-merge has no use without --lora-r: give a rank, such as 16")
        elif self.lora_r < 1:
            raise OptionError(f"--lora-r {self.lora_r} is less than 1: give for example 16, or leave it out")
        if self.lora_target is not None and not all(name.strip() for name in self.lora_target.split(",")):
            raise OptionError(
                f"--lora-target {self.lora_target!r} names an empty module: give for example q_proj,v_proj"
            )
        if self.lora_alpha is not None and not (math.isfinite(self.lora_alpha) and self.lora_alpha > 0):
            raise OptionError(f"--lora-alpha {self.lora_alpha} is not above 0: give for example twice --lora-r")


@dataclass(frozen=True, slots=True)
class Merge:
    """How near the merged model is to the trained one.

    The losses are mean negative log-likelihoods of the answers of up to 32 forget rows, in nats per token, all computed
    in float32 on the same rows.

    Attributes:
        dtype: Type that the merged weights are rounded to.
        update_error: Norm of the rounding error over the norm of the update, over all weights with adapters; 0 where
            nothing is lost, about 1 where rounding undoes the update.
        loss_before: Of the model without adapters.
        loss_adapters: Of the model with the adapters beside the weights: what was trained.
        loss_merged: Of the model that is written.
    """

    dtype: str
    update_error: float
    loss_before: float
    loss_adapters: float
    loss_merged: float

    @property
    def is_faithful(self) -> bool:
        """Whether both the update and its effect on the loss are kept but for 5 %."""
        effect = abs(self.loss_adapters - self.loss_before)
        # 0.001 nats is noise of float32 sums and of no interest to anybody.
        missing = max(0.0, abs(self.loss_merged - self.loss_adapters) - 1e-3)
        return self.update_error <= _TOLERATED and missing <= _TOLERATED * effect


def check_installed() -> None:
    """Make sure that peft is there."""
    if importlib.util.find_spec("peft") is None:
        raise OptionError("--lora-r needs peft: pip install 'lm-eval-tofu[unlearn]'")


def attach(model: Any, rank: int, alpha: float | None, target: str | None) -> Any:
    """Give a model adapters and freeze everything else.

    Args:
        model: A causal language model of transformers; it is changed in place.
        rank: Of the adapters.
        alpha: The scale is alpha / rank; None: twice the rank.
        target: Names of modules, joined by commas; None: all linear layers but the output embedding.

    Returns:
        A `peft.PeftModel`.

    Raises:
        OptionError: The model has no module of such a name, or it shares its weights with another one.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    names = [name.strip() for name in target.split(",")] if target else "all-linear"
    ends = {name.rsplit(".", maxsplit=1)[-1] for name, _ in model.named_modules()}
    for name in names if target else ():
        if not any(path == name or path.endswith(f".{name}") for path, _ in model.named_modules()):
            linear = sorted(
                {p.rsplit(".", 1)[-1] for p, m in model.named_modules() if hasattr(m, "in_features")} & ends
            )
            raise OptionError(f"--lora-target {name!r} is no module of {type(model).__name__}: use {', '.join(linear)}")
    if target:
        _check_tied(model, names)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=names,
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise OptionError(f"--lora-target {target}: {str(error).splitlines()[0]}: name linear layers") from error


def adapter_digests(model: Any) -> checkpoint.Digests:
    """Digest the adapters' weights, by the names that they are saved under."""
    found = checkpoint.parameter_digests(model)
    return {name.replace(".default.", "."): digest for name, digest in found.items() if ".lora_" in name}


def _check_tied(model: Any, names: Sequence[str]) -> None:
    """Refuse adapters on one of two layers that share their weights: merging them would change the other one too."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(each is None for each in ends) or ends[0].weight is not ends[1].weight:
        return
    for path, module in model.named_modules():
        for name in names:
            if module in ends and (path == name or path.endswith(f".{name}")):
                raise OptionError(
                    f"--lora-target {name!r}: {type(model).__name__} shares the weights of its input and output "
                    "embeddings (tie_word_embeddings), so that adapters on one of them would change both when they "
                    "are merged: leave it out"
                )


def save_merged(
    trainer: Any, model: str, dtype: str, folder: Path, forget: Sequence["Example"], pad_token_id: int
) -> dict[str, Any] | None:
    """Write the model with the adapters merged into its weights; to be called in every process.

    The base is loaded anew, because the trained one may be sharded over devices.

    Args:
        trainer: After training.
        model: The base, as the user named it.
        dtype: The value of `--dtype`.
        folder: Where the checkpoint goes.
        forget: Forget rows, by which the merged model is compared with the trained one.
        pad_token_id: What fills a batch of them.

    Returns:
        the record's entry `merge`, in the main process; None in the others.
    """
    adapters = folder.with_name(ADAPTERS)
    trainer.save_model(str(adapters))
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return None
    rows = forget[:: -(-len(forget) // _CHECKED_ROWS)]
    merged, found = merge(load_model(model, dtype), adapters, rows, pad_token_id, trainer.args.device)
    merged.save_pretrained(folder)
    if not found.is_faithful:
        adapters.rename(folder / ADAPTERS)
        for name in ("training_args.bin", "README.md"):  # the second is peft's form to fill in
            (folder / ADAPTERS / name).unlink(missing_ok=True)
        log.warning(
            "merging the adapters into weights in %s lost a part of what was trained: relative error of the update "
            "%.2f; loss on forget rows %.4f before training, %.4f with the adapters, %.4f merged (nats/token). %s The "
            "adapters are kept in the checkpoint's folder %s: evaluate them with --model_args "
            "pretrained=%s,peft=ADAPTERS, or train with --no-lora-merge",
            *(found.dtype, found.update_error, found.loss_before, found.loss_adapters, found.loss_merged),
            "Give --dtype float32 (or mixed on a GPU)." if found.dtype != "float32" else "",
            *(ADAPTERS, model),
        )
    return {"merge": asdict(found)}


def merge(
    base: Any, adapters: Path, examples: Sequence["Example"], pad_token_id: int, device: Any = "cpu"
) -> tuple[Any, Merge]:
    """Merge adapters in float32, round the result to the base's type once, and measure what that loses.

    Args:
        base: The model that the adapters were trained on, with weights of the type that the merged ones shall have.
        adapters: Directory of the adapters.
        examples: Rows whose loss is computed before and after.
        pad_token_id: What fills a batch of them.
        device: Where to compute, if the model fits there beside what training has left; else on the CPU.

    Returns:
        The merged model, and how near it is to the trained one.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    dtype = base.dtype
    # Not one type for all: some architectures keep a few weights in float32 whatever the others are.
    types = {name: parameter.dtype for name, parameter in base.named_parameters()}
    base = base.float()
    base = base.to(_roomy_device(base, device))
    wrapped = PeftModel.from_pretrained(base, str(adapters)).eval()
    with wrapped.disable_adapter():
        before = _loss(wrapped, examples, pad_token_id)
    trained = _loss(wrapped, examples, pad_token_id)
    lost = size = 0.0
    for module in wrapped.modules():
        if isinstance(module, BaseTunerLayer):
            [adapter] = module.active_adapters
            with torch.no_grad():
                update = module.get_delta_weight(adapter)
                exact = module.get_base_layer().weight + update
                lost += float((exact.to(dtype) - exact).square().sum())
                size += float(update.square().sum())
    merged = wrapped.merge_and_unload()
    # Rounded, but still computed with in float32, so that the losses differ by the weights alone.
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(types[name]).float()
    error = math.sqrt(lost / size) if size else 0.0
    found = Merge(str(dtype).removeprefix("torch."), error, before, trained, _loss(merged, examples, pad_token_id))
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(types[name])
    return merged, found


def _roomy_device(model: Any, wanted: Any) -> Any:
    """A GPU with room for the model and a quarter more; otherwise the CPU."""
    import torch

    device = torch.device(wanted)
    if device.type != "cuda":
        return torch.device("cpu")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return device if free > 1.25 * size else torch.device("cpu")


def _loss(model: Any, examples: Sequence["Example"], pad_token_id: int, batch: int = 8) -> float:
    """Mean negative log-likelihood of the examples' answers, nats per token."""
    import torch

    from lm_eval_tofu.unlearn import loss
    from lm_eval_tofu.unlearn.data import AnswerCollator

    collate = AnswerCollator(pad_token_id)
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(examples), batch):
            batched = collate(examples[start : start + batch])
            inputs = {name: tensor.to(model.device) for name, tensor in batched.items()}
            tokens = loss.answer_tokens(inputs["labels"])
            logits = loss.answer_logits(model, model.get_output_embeddings(), inputs, tokens)
            total -= float(loss.answer_logprobs(logits, tokens).sum())
            count += len(tokens)
    return total / count
