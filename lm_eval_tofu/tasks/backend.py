"""What the model object of lm-eval says of itself: the effective settings of a run, and how its decoding is pinned.

Written for lm-eval 0.4.13's `hf`, `vllm` and API models. Of other backends less is known; what is not known stays None.
"""

import hashlib
import logging
import sys
import weakref
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lm_eval_tofu import arm
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.fingerprints import weights_fingerprint

log = logging.getLogger(__name__)

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
_HOSTED = ("openai.com", "azure.com", "anthropic.com")
"""Servers that refuse parameters which they do not know."""

_NEUTRAL: Mapping[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "bad_words": None,
    "bad_words_ids": None,
    "force_words_ids": None,
    "constraints": None,
    "allowed_token_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "logit_bias": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "watermarking_config": None,
    "num_beams": 1,
    "num_beam_groups": None,
    "diversity_penalty": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "prompt_lookup_num_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "min_tokens": 0,
    "max_new_tokens": None,
    "max_time": None,
    "stop_strings": None,
    "token_healing": None,
    "remove_invalid_values": None,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
}
"""What would bend an answer away from the model's own distribution, or end it elsewhere, and the value with which it
does not (transformers' GenerationConfig, vLLM's SamplingParams)."""
_NEUTRAL_SAMPLING: Mapping[str, Any] = {
    "top_k": 0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""The same for what matters to samples only."""
_SENT = {"repetition_penalty": 1.0}
_SENT_SAMPLING = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}
"""What a server of one's own is told: vLLM's and SGLang's take their defaults from the checkpoint otherwise."""


def calling_model() -> Any:
    """lm-eval's model object, from the evaluation that is calling a task's `build_all_requests`; None without one.

    lm-eval 0.4.13 hands a task the chat template's method alone, and not even that without `--apply_chat_template`;
    its `evaluate` has the model in the local variable `lm`.
    """
    from lm_eval.api.model import LM

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "evaluate":
            model = frame.f_locals.get("lm")
            model = getattr(model, "lm", model)  # out of the wrapper that `--use_cache` makes
            if isinstance(model, LM):
                return model
        frame = frame.f_back
    return None


def is_a(model: Any, name: str) -> bool:
    """Whether a model object is of one of lm-eval's classes, without importing the backend."""
    return any(each.__name__ == name for each in type(model).__mro__)


def is_vllm_on_cpu() -> bool:
    """Whether this process runs vLLM's CPU build; False without vLLM."""
    platforms = sys.modules.get("vllm.platforms")
    return bool(platforms is not None and platforms.current_platform.is_cpu())


def backend_name(model: Any, metadata: Mapping[str, Any]) -> str:
    """The backend as `--model` names it, or its class where that has no name here."""
    if model is None:
        return "a server" if "base_url" in metadata else arm.UNKNOWN_BACKEND
    for each in type(model).__mro__:
        if each.__name__ in _NAMES:
            return _NAMES[each.__name__] if each is type(model) else type(model).__name__
    return type(model).__name__


# Decoding.


class Pins(NamedTuple):
    """What keeps everything but the task from deciding how answers are generated.

    Attributes:
        arguments: What a request must say.
        known: Whether the backend is known to follow it, and to add nothing of its own.
        overruled: What the checkpoint's generation_config.json asked for and does not get.
    """

    arguments: dict[str, Any]
    known: bool
    overruled: dict[str, Any]


_limits: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def pin_generation(model: Any, metadata: Mapping[str, Any], *, sampled: bool) -> Pins:
    """Find out what a request must say so that nothing but the task decides how answers are generated.

    A `max_new_tokens` of the checkpoint is taken out of the loaded model's settings: transformers prefers it to the
    limit that lm-eval passes, and lm-eval 0.4.13 lets no request set it.

    Args:
        model: lm-eval's model object; None where it is not known.
        metadata: The model's arguments.
        sampled: Whether samples are drawn.
    """
    config = getattr(getattr(model, "model", None), "generation_config", None)
    if config is not None:
        if getattr(config, "max_new_tokens", None) is not None:
            _limits[model] = config.max_new_tokens
            config.max_new_tokens = None
        limit = {"max_new_tokens": _limits[model]} if model in _limits else {}
        neutral = {**_NEUTRAL, **(_NEUTRAL_SAMPLING if sampled else {})}
        asked = {name: getattr(config, name, None) for name in neutral}
        bent = {name: value for name, value in asked.items() if not _is_neutral(name, value)}
        return Pins({name: neutral[name] for name in bent}, True, {**bent, **limit})
    if is_a(model, "VLLM") or is_a(model, "SGLangLM"):
        return Pins({}, True, {})  # all settings come from the request; what it leaves out has its neutral value
    url = getattr(model, "base_url", None) or metadata.get("base_url")
    host = urlsplit(str(url)).hostname or "" if url else ""
    if not host or any(host == each or host.endswith(f".{each}") for each in _HOSTED):
        return Pins({}, False, {})
    return Pins(dict(_SENT_SAMPLING if sampled else _SENT), True, {})


def check_greedy(task: str, given: Mapping[str, Any]) -> None:
    """Refuse generation arguments under which an answer is not the model's greedy one.

    Raises:
        OptionError: `--gen_kwargs` has one.
    """
    if given.get("do_sample"):
        raise OptionError(
            f"--gen_kwargs do_sample={given['do_sample']} does not fit {task}, whose answers are greedy: leave it out "
            "(tofu_best_of_n draws samples)"
        )
    if given.get("temperature"):
        raise OptionError(
            f"--gen_kwargs temperature={given['temperature']} does not fit {task}, whose answers are greedy: leave it "
            "out"
        )
    check_neutral(task, given)


def check_neutral(task: str, given: Mapping[str, Any]) -> None:
    """Refuse generation arguments that bend answers, greedy or sampled.

    Raises:
        OptionError: `--gen_kwargs` has one.
    """
    for name in _NEUTRAL:
        if name in given and not _is_neutral(name, given[name]):
            raise OptionError(
                f"--gen_kwargs {name}={given[name]} does not fit {task}, which asks what the model itself would answer"
                ": leave it out"
            )


def _is_neutral(name: str, value: Any) -> bool:
    neutral = {**_NEUTRAL, **_NEUTRAL_SAMPLING}[name]
    # Not given, or a list of nothing; 1.0 for 1 and False for 0.
    return value is None or value == neutral or (neutral is None and not value)


def effective_generation(kwargs: Mapping[str, Any], samples: int | None) -> dict[str, Any]:
    """A request's generation arguments without those that have no effect; `n` for the number of samples."""
    known = {**_NEUTRAL, **_NEUTRAL_SAMPLING}
    kept = {name: value for name, value in kwargs.items() if not (name in known and _is_neutral(name, value))}
    if not kept.get("do_sample"):
        for name in ("temperature", "top_p", "seed"):
            kept.pop(name, None)
    return kept if samples is None else {**kept, "n": samples}


def generation_prompt_ids(model: Any, prompt: str) -> list[int] | None:
    """The ids that the backend generates from; None where it does not tell.

    Raises:
        ValueError: The tokenizer cannot encode the prompt.
    """
    if is_a(model, "HFLM"):
        ids, _ = model.tok_batch_encode([prompt])
        return [int(token) for token in ids[0]]
    if is_a(model, "VLLM"):
        return list(model.tok_encode(prompt))
    if is_a(model, "TemplateAPI") and model.tokenized_requests and model.tokenizer_backend == "huggingface":
        return list(model.tok_encode(prompt, add_special_tokens=model.add_bos_token))
    return None


# Settings.


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
