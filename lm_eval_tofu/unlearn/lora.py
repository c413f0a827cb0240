"""LoRA adapters: attached before training, merged into the weights after it."""

import importlib.util
from pathlib import Path
from typing import Any

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.unlearn import checkpoint
from lm_eval_tofu.unlearn.models import load_model

ALL_LINEAR = "all-linear"


def check_installed() -> None:
    """Make sure that peft is there.

    Raises:
        OptionError: It is not.
    """
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
        OptionError: The model has no module of such a name.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    names = target.split(",") if target else ALL_LINEAR
    ends = {name.rsplit(".", maxsplit=1)[-1] for name, _ in model.named_modules()}
    for name in names if target else ():
        if not any(path == name or path.endswith(f".{name}") for path, _ in model.named_modules()):
            linear = sorted(
                {p.rsplit(".", 1)[-1] for p, m in model.named_modules() if hasattr(m, "in_features")} & ends
            )
            raise OptionError(f"--lora-target {name!r} is no module of {type(model).__name__}: use {', '.join(linear)}")
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


def save_merged(trainer: Any, model: str, dtype: str, folder: Path) -> None:
    """Write the model with the adapters merged into its weights; to be called in every process.

    The base is loaded anew, because the trained one may be sharded over devices.

    Args:
        trainer: After training.
        model: The base, as the user named it.
        dtype: The value of `--dtype`.
        folder: Where the checkpoint goes.
    """
    from peft import PeftModel

    adapters = folder.with_name("adapters")
    trainer.save_model(str(adapters))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        merged = PeftModel.from_pretrained(load_model(model, dtype), str(adapters)).merge_and_unload()
        merged.save_pretrained(folder)
