"""Files that users point at: lm_eval run configs in `lm_eval/`; `lm-eval-tofu presets` prints their paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu.errors import OptionError

PRESETS_DIR = Path(__file__).parent

_KV_CACHE_ON_CPU = 2 << 30
_ONLY_VLLM = (
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_num_seqs",
    "seed",
)
_ONLY_HF = ("attn_implementation", "device_map", "logits_cache", "softmax_dtype")


def read(name: str) -> dict[str, Any]:
    """The run config of a preset.

    Raises:
        OptionError: There is none of that name.
    """
    import yaml

    known = {path.stem: path for path in sorted((PRESETS_DIR / "lm_eval").glob("*.yaml"))}
    if name not in known:
        raise OptionError(f"preset {name!r} is unknown: use one of {', '.join(known)}")
    config: dict[str, Any] = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    return config


def change_backend(config: dict[str, Any], backend: str) -> None:
    """Rename model_args for the other backend, and leave out what only the first one has."""
    model_args = config["model_args"]
    on_cpu = config.get("device") == "cpu"
    config["model"] = backend
    if backend == "hf":
        _rename(model_args, "max_model_len", "max_length", drop=_ONLY_VLLM)
        model_args["softmax_dtype"] = "float32"  # as vLLM computes log-probabilities
        config["batch_size"] = 16 if on_cpu else "auto"
        if not on_cpu:
            config.pop("device", None)  # lm_eval's default is the first GPU
    else:
        _rename(model_args, "max_length", "max_model_len", drop=_ONLY_HF)
        model_args["enable_prefix_caching"] = False
        if on_cpu:
            model_args |= {"enforce_eager": True, "kv_cache_memory_bytes": _KV_CACHE_ON_CPU}
        else:
            model_args["gpu_memory_utilization"] = 0.85
        config["batch_size"] = "auto"


def _rename(model_args: dict[str, Any], old: str, new: str, *, drop: Sequence[str]) -> None:
    for name in drop:
        model_args.pop(name, None)
    if old in model_args:
        model_args[new] = model_args.pop(old)
