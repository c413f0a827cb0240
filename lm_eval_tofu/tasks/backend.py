"""The settings of a run that the model object of lm-eval tells: which model ran, in which types, on which versions.

Written for lm-eval 0.4.13's `hf`, `vllm` and API models. Of other backends less is known; what is not known stays None.
"""

import hashlib
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from lm_eval_tofu import arm
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.tasks.harness import is_a

_NAMES = {
    "HFLM": "hf",
    "VLLM": "vllm",
    "SGLangLM": "sglang",
    "LocalCompletionsAPI": "local-completions",
    "LocalChatCompletion": "local-chat-completions",
    "OpenAICompletionsAPI": "openai-completions",
    "OpenAIChatCompletion": "openai-chat-completions",
}
"""lm-eval's classes by the name that `--model` takes."""
_LIBRARIES = {"hf": ("transformers", "torch", "peft"), "vllm": ("vllm", "transformers", "torch")}


def backend_name(model: Any, metadata: Mapping[str, Any]) -> str:
    """The backend as `--model` names it, or its class where that has no name here."""
    if model is None:
        return "a server" if "base_url" in metadata else arm.UNKNOWN_BACKEND
    for each in type(model).__mro__:
        if each.__name__ in _NAMES:
            return _NAMES[each.__name__] if each is type(model) else type(model).__name__
    return type(model).__name__


def model_settings(model: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ArmSettings` that say which model ran, and how.

    Args:
        model: lm-eval's model object; None where it is not known.
        metadata: The model's arguments, merged with the tasks' options by lm-eval.
    """
    backend = backend_name(model, metadata)
    pretrained, own = _named(model, metadata)
    is_object = pretrained is not None and not isinstance(pretrained, str)
    name = str(getattr(pretrained, "name_or_path", None) or type(pretrained).__name__) if is_object else str(pretrained)
    given = {key: _str_or_none(own.get(key)) for key in ("revision", "subfolder", "delta", "gguf_file")}
    given["revision"] = None if given["revision"] == "main" else given["revision"]
    adapter = next((f"{key}={own[key]}" for key in ("peft", "lora_local_path") if own.get(key)), None)
    weights, commit = None, None
    if model is None or is_a(model, "HFLM") or is_a(model, "VLLM") or is_a(model, "SGLangLM"):
        weights, commit = _weights(name, given, adapter) if not is_object else (_loaded_weights(pretrained), None)
    if weights is None and not is_object and (held := getattr(model, "_model", None)) is not None:
        weights = _loaded_weights(held)
    return {
        "model": name if pretrained is not None else "?",
        **given,
        "commit": commit,
        "adapter": adapter,
        "weights": weights,
        "quantization": _quantization(model, metadata),
        "backend": backend,
        "weights_dtype": _dtype(_loaded_dtype(model)),
        "checkpoint_dtype": _dtype(_config_dtype(model)),
        "batch_size": _str_or_none(getattr(model, "batch_size", None)),
        "think_end_token": metadata.get("think_end_token"),
        "versions": _versions(backend, adapter),
    }


def softmax_dtype(model: Any) -> str | None:
    """The type in which log-probabilities are computed; None where it is not known."""
    if is_a(model, "VLLM"):
        return "float32"  # vLLM's sampler casts logits before its log-softmax
    if is_a(model, "HFLM"):
        chosen = getattr(model, "softmax_dtype", None) or getattr(model, "mixed_precision_dtype", None)
        return _dtype(chosen) or _dtype(_loaded_dtype(model))
    return None


def special_tokens(tokenizer: Any, model: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The special tokens that reach the model, and those that end a generation."""
    names = {"bos": "bos_token", "eos": "eos_token", "pad": "pad_token"}
    found = {short: _str_or_none(getattr(tokenizer, name, None)) for short, name in names.items()}
    config = getattr(getattr(model, "model", None), "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    found["add_bos_token"] = getattr(model, "add_bos_token", metadata.get("add_bos_token"))
    return {
        **found,
        **({} if ends is None else {"ends_generation": sorted(ends) if isinstance(ends, list) else [ends]}),
    }


def _named(model: Any, metadata: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model's name (or the model itself), and the arguments that tell it from others of that name.

    The object's own attributes come first: where it was made beforehand, the metadata may name another.
    """
    own = {key: metadata.get(key) for key in ("revision", "subfolder", "delta", "gguf_file", "peft", "lora_local_path")}
    if is_a(model, "HFLM"):
        own |= {key: getattr(model, key, None) for key in ("revision", "delta", "peft")}
        return getattr(model, "pretrained", None), own
    if is_a(model, "VLLM"):
        own["lora_local_path"] = getattr(getattr(model, "lora_request", None), "lora_path", None)
        return model.model_args.get("model"), {**own, "revision": model.model_args.get("revision"), "peft": None}
    if is_a(model, "TemplateAPI"):
        return model.model, own
    return metadata.get("pretrained") or metadata.get("model"), own


def _weights(name: str, given: Mapping[str, Any], adapter: str | None) -> tuple[str | None, str | None]:
    """Fingerprint of the files that were loaded, and their commit where they came from the hub."""
    folder, commit = Path(name, given["subfolder"] or ""), None
    if not folder.is_dir():
        snapshot = _snapshot(name, given["revision"])
        if snapshot is None:
            return None, None
        folder, commit = snapshot / (given["subfolder"] or ""), snapshot.name
    beside = Path(adapter.partition("=")[2]) if adapter else None
    if beside is not None and not beside.is_dir():
        beside = _snapshot(str(beside), None)
        if beside is None:
            return None, commit
    if given["delta"]:
        return None, commit
    return weights_fingerprint(folder, gguf_file=given["gguf_file"], adapter=beside), commit


def _snapshot(name: str, revision: str | None) -> Path | None:
    """The folder of a hub repository in the local cache, which the backend has filled."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001 - errors of several libraries mean: not there, or no hub id
        return None


def _loaded_weights(model: Any) -> str | None:
    """Fingerprint of a model in memory: of each parameter 64 values, evenly spread."""
    digest = hashlib.sha256()
    try:
        for name, parameter in model.named_parameters():
            flat = parameter.detach().reshape(-1)
            values = flat[:: max(1, flat.numel() // 64)].float().cpu().numpy()
            digest.update(f"{name}{tuple(parameter.shape)}".encode() + values.tobytes())
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):  # quantised or offloaded: no values here
        return None
    return f"loaded:{digest.hexdigest()[:16]}"


def _engine_config(model: Any) -> Any:
    """vLLM's own record of the model that it runs; None with data parallelism, where the engines are elsewhere."""
    return getattr(getattr(getattr(model, "model", None), "llm_engine", None), "model_config", None)


def _loaded_dtype(model: Any) -> Any:
    if is_a(model, "VLLM"):
        return getattr(_engine_config(model), "dtype", None)
    return getattr(getattr(model, "model", None), "dtype", None)


def _config_dtype(model: Any) -> Any:
    config = getattr(model, "_config", None)  # as lm-eval read it, before a type was chosen
    return getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)


def _dtype(value: Any) -> str | None:
    return None if value is None else str(value).removeprefix("torch.")


def _quantization(model: Any, metadata: Mapping[str, Any]) -> str | None:
    if is_a(model, "VLLM"):
        return _str_or_none(getattr(_engine_config(model), "quantization", metadata.get("quantization")))
    config = getattr(getattr(getattr(model, "model", None), "config", None), "quantization_config", None)
    if config is None:
        return None
    values = config if isinstance(config, dict) else config.to_dict()
    method = values.get("quant_method")
    method = getattr(method, "value", method)
    bits = values.get("bits") or next((bits for bits in (4, 8) if values.get(f"load_in_{bits}bit")), None)
    return f"{method} ({bits} bits)" if bits else str(method)


def _versions(backend: str, adapter: str | None) -> dict[str, str]:
    names = ["lm-eval", *_LIBRARIES.get(backend, ("transformers",))]
    found = {}
    for name in names:
        if name == "peft" and not adapter:
            continue
        try:
            found[name] = packages.version({"lm-eval": "lm_eval"}.get(name, name))
        except packages.PackageNotFoundError:  # the CPU build of vLLM has a name of its own
            continue
    return found


def _str_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
