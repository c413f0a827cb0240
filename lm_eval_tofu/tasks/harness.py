"""What the tasks use of lm-eval that is not its documented interface, in one place, with what breaks if it changes."""

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from lm_eval.api.model import LM, TemplateLM
from lm_eval.loggers.evaluation_tracker import GeneralConfigTracker
from lm_eval.models.api_models import TemplateAPI
from lm_eval.utils import hash_string, sanitize_model_name

RELIED_ON: Mapping[str, str] = {
    "lm_eval.evaluator:evaluate(lm)": "the tasks do not find the model, and record no setting of it",
    "lm_eval.api.task:ConfigurableTask.download": "the rows are not ours",
    "lm_eval.api.task:ConfigurableTask.higher_is_better": "metrics that are neither better nor worse get a direction",
    "lm_eval.api.task:ConfigurableTask.build_all_requests": "no request is built with the tokens of training",
    "lm_eval.api.task:ConfigurableTask.construct_requests": "the same",
    "lm_eval.api.task:ConfigurableTask.fewshot_context": "the same",
    "lm_eval.api.task:ConfigurableTask.process_results": "no record is made of what a model said",
    "lm_eval.api.task:ConfigurableTask.override_metric": "--predict_only computes all metrics",
    "lm_eval.api.task:ConfigurableTask.set_fewshot_seed": "--seed does not repeat samples on vLLM and servers",
    "lm_eval.api.task:ConfigurableTask.dump_config": "results hold no record of the run's settings",
    "lm_eval.api.task:ConfigurableTask.instances": "prompts are not compared with a reference run's",
    "lm_eval.api.model:TemplateLM._encode_pair": "a backend's tokens are not compared with those of training",
    "lm_eval.api.model:TemplateLM.tok_encode": "the same for prompts that answers are generated from",
    "lm_eval.models.huggingface:HFLM.tok_batch_encode": "the same on hf",
    "lm_eval.models.huggingface:HFLM.custom_prefix_token_id": "prompts are not checked before a sweep",
    "lm_eval.models.huggingface:HFLM._config": "the type of a checkpoint's weights is not known",
    "lm_eval.models.huggingface:HFLM._model": "weights of a model in memory have no fingerprint",
    "lm_eval.models.huggingface:HFLM.softmax_dtype": "the type of log-probabilities is not known",
    "lm_eval.models.huggingface:HFLM.mixed_precision_dtype": "the same",
    "lm_eval.models.huggingface:HFLM.pretrained": "the model is not known by its name",
    "lm_eval.models.huggingface:HFLM.peft": "an adapter is no part of the model's name",
    "lm_eval.models.vllm_causallms:VLLM.model_args": "the model is not known by its name",
    "lm_eval.models.vllm_causallms:VLLM.lora_request": "an adapter is no part of the model's name",
    "lm_eval.models.api_models:TemplateAPI.tokenizer_backend": "a server's tokens are not compared",
    "lm_eval.models.api_models:TemplateAPI.tokenized_requests": "text that a server splits itself is scored",
    "lm_eval.loggers.evaluation_tracker:GeneralConfigTracker._get_model_name": "too long a path is found at the end",
    "lm_eval.utils:sanitize_model_name": "the same",
    "lm_eval.utils:hash_string": "prompts are not compared with a reference run's",
}
"""`module:name`, `module:class.attribute` or `module:function(local variable)`, with what breaks without it."""

EncodePair = Callable[[str, str], tuple[list[int], list[int]]]
"""A backend's own encoding of a context and its continuation."""

__all__ = ["RELIED_ON", "EncodePair", "TemplateAPI", "hash_string"]


def calling_model() -> Any:
    """lm-eval's model object, from the evaluation that is calling a task's `build_all_requests`; None without one.

    lm-eval hands a task the chat template's method alone, and not even that without `--apply_chat_template`.
    """
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


def encode_pair(model: Any, tokenizer: Any, metadata: Mapping[str, Any]) -> EncodePair | None:
    """How the backend encodes a prompt and an answer; None where it does not, or asks a server for each text.

    Args:
        model: lm-eval's model object. Without one, as in the check before a sweep, the encoding is that of hf.
        tokenizer: Its tokenizer.
        metadata: The model's arguments.
    """
    if model is None:
        from lm_eval.models.huggingface import HFLM

        model = HFLM.__new__(HFLM)  # without weights
        model.tokenizer, model.backend = tokenizer, "causal"
        model.add_bos_token, model.custom_prefix_token_id = (
            metadata.get("add_bos_token"),
            metadata.get("prefix_token_id"),
        )
    if not isinstance(model, TemplateLM) or getattr(model, "tokenizer_backend", "huggingface") in (None, "remote"):
        return None
    encode: EncodePair = model._encode_pair
    return encode


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


def results_folder(model_args: Mapping[str, Any] | str) -> str | None:
    """The name of the directory that lm-eval saves results in; None where the arguments name no model."""
    name = model_args if isinstance(model_args, str) else GeneralConfigTracker._get_model_name(dict(model_args))
    return None if name is None else str(sanitize_model_name(name))
