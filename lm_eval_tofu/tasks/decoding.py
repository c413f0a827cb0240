"""How answers are generated: the arguments of a request, so that nothing but the task decides."""

import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.tasks import checks, harness
from lm_eval_tofu.tasks.options import Options

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
"""Arguments that change the model's own distribution or end an answer early, and the value with which they have no
effect (transformers' GenerationConfig, vLLM's SamplingParams)."""
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
"""Sent to servers that the user runs: vLLM's and SGLang's take their defaults from the checkpoint otherwise."""
_OTHER_LIMITS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")
"""Other names of a limit on new tokens, and transformers' limit on all of them."""
_SAMPLING = ("seed", "temperature", "top_p", *_NEUTRAL_SAMPLING)
"""What would change how samples are drawn without the options' knowledge."""


class Pins(NamedTuple):
    """What a backend must be sent so that nothing but the task decides how answers are generated.

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
    if harness.is_a(model, "VLLM") or harness.is_a(model, "SGLangLM"):
        return Pins({}, True, {})  # all settings come from the request; what it leaves out has its neutral value
    url = getattr(model, "base_url", None) or metadata.get("base_url")
    host = urlsplit(str(url)).hostname or "" if url else ""
    if not host or any(host == each or host.endswith(f".{each}") for each in _HOSTED):
        return Pins({}, False, {})
    return Pins(dict(_SENT_SAMPLING if sampled else _SENT), True, {})


def request_arguments(
    task: str,
    given: Mapping[str, Any],
    pins: Pins,
    end_of_turn: Sequence[str],
    sampling: Options | None,
    is_server: bool,
) -> dict[str, Any]:
    """The generation arguments of a task's requests.

    Args:
        task: Name of the task, for messages.
        given: The task's `generation_kwargs` with those of `--gen_kwargs`.
        pins: See `pin_generation`.
        end_of_turn: Texts that end the assistant's turn.
        sampling: The options that say how samples are drawn; None for a greedy answer.
        is_server: Whether the model answers behind an API.

    Raises:
        OptionError: `--gen_kwargs` has an argument that is not how answers are generated here.
    """
    check_limit(given)
    if pins.overruled:
        named = ", ".join(f"{name}={str(value)[:40]}" for name, value in pins.overruled.items())
        checks.warn_once(
            f"the checkpoint's generation_config.json sets {named}: the tasks ask what the model itself would "
            "answer, and overrule it"
        )
    kwargs = {**pins.arguments, **given, "until": [*_stops(given.get("until", [])), *end_of_turn]}
    if sampling is None:
        check_greedy(task, given)
        return kwargs
    check_neutral(task, given)
    for name in _SAMPLING:
        if name in given:
            why = "would make all samples the same" if name == "seed" else "is not how samples are drawn here"
            raise OptionError(
                f"--gen_kwargs {name}={given[name]} {why}: leave it out, and give best_of_n_temperature or "
                "best_of_n_top_p in --metadata where you need to"
            )
    temperature = sampling.best_of_n_temperature
    if temperature == 0:
        return {**kwargs, "do_sample": False}
    if given["do_sample"] is not True:
        raise OptionError(
            f"--gen_kwargs do_sample={given['do_sample']} does not fit {task}, which draws samples: "
            "leave it out, or give best_of_n=1 and best_of_n_temperature=0 in --metadata for one greedy answer"
        )
    kwargs |= {"do_sample": True, "temperature": temperature, "top_p": sampling.best_of_n_top_p}
    # transformers would draw from the 50 likeliest tokens only; 0 takes the limit off, in vLLM too.
    return kwargs if is_server and "top_k" not in pins.arguments else {**kwargs, "top_k": 0}


def sample_seeds(model: Any, seed: Any, row: int, count: int, is_server: bool) -> list[dict[str, int]]:
    """The seed that each sample's request states, where the backend takes one, so that `--seed` repeats a run.

    vLLM's engine draws from requests in the order in which it schedules them, which its own seed does not fix. A server
    gets the same seed with every request from lm-eval, which would make all samples the same. transformers draws from
    torch's generator, which lm-eval seeds. vLLM's CPU build takes a seed, but its engine ends with an error as soon as
    it takes such a prompt in two parts ("CPU Generator does not use offset", vLLM 0.32).
    """
    if is_server:
        # lm-eval asks a server for requests with the same arguments at once: not a seed for each row.
        key = [seed]
    elif harness.is_a(model, "VLLM") and not is_vllm_on_cpu():
        key = [seed, row]
    else:
        return [{}] * count
    # Some servers take 31 bits.
    return [{"seed": int(word) >> 1} for word in np.random.SeedSequence(key).generate_state(count)]


def check_limit(given: Mapping[str, Any]) -> None:
    """Make sure that one limit on new tokens is given, and that lm-eval reads it.

    Raises:
        OptionError: It has another name, beside which lm-eval would take the task's own; or it is no number.
    """
    for name in _OTHER_LIMITS:
        if name in given:
            raise OptionError(
                f"--gen_kwargs {name}={given[name]} is not how an answer's length is limited here: "
                "give max_gen_toks, the number of new tokens"
            )
    limit = given["max_gen_toks"]
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise OptionError(
            f"--gen_kwargs max_gen_toks={limit!r} is no whole number from 1 up: leave it out, or give one"
        )


def _stops(until: Any) -> list[str]:
    """The strings that end an answer besides the end of turn; lm-eval takes one alone as well as a list."""
    stops = list(until) if isinstance(until, list | tuple) else [until]
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise OptionError(f"--gen_kwargs until={until!r} names no string that ends an answer: give one, or a list")
    return stops


def check_greedy(task: str, given: Mapping[str, Any]) -> None:
    """Refuse generation arguments under which an answer is not the model's greedy one."""
    for name, hint in (("do_sample", " (tofu_best_of_n draws samples)"), ("temperature", "")):
        if given.get(name):
            raise OptionError(
                f"--gen_kwargs {name}={given[name]} does not fit {task}, whose answers are greedy: leave it out{hint}"
            )
    check_neutral(task, given)


def check_neutral(task: str, given: Mapping[str, Any]) -> None:
    """Refuse generation arguments that change the model's own distribution, for greedy answers and samples."""
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


def is_vllm_on_cpu() -> bool:
    """Whether this process runs vLLM's CPU build; False without vLLM."""
    platforms = sys.modules.get("vllm.platforms")
    return bool(platforms is not None and platforms.current_platform.is_cpu())
