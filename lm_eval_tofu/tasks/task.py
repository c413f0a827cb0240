"""The task class behind every YAML file of this directory.

One document may ask for several log-likelihoods and a generation. The class builds those requests with the tokens that
training uses (`lm_eval_tofu.chat`), turns what comes back into losses, and hands them to the YAML's hooks.
"""

import functools
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.api_models import TemplateAPI
from lm_eval.models.utils import resolve_max_length
from lm_eval.utils import hash_string

from lm_eval_tofu import chat, files, tofu
from lm_eval_tofu.arm import RECORD_KEY, ArmSettings
from lm_eval_tofu.chat import Prompting
from lm_eval_tofu.errors import OptionError, PromptError
from lm_eval_tofu.fingerprints import rows_fingerprint, tokens_fingerprint
from lm_eval_tofu.metrics.cut import first_fact
from lm_eval_tofu.tasks import TASKS_DIR, backend, checks, families
from lm_eval_tofu.tasks.generations import Reader
from lm_eval_tofu.tasks.hooks import Scored
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.records import Record
from lm_eval_tofu.tasks.reference import Reference, load_reference
from lm_eval_tofu.tasks.reported import Metric
from lm_eval_tofu.tasks.rows import Row
from lm_eval_tofu.tofu import Source, retain_split

log = logging.getLogger(__name__)

_TOKENIZER_ARGS = ("revision", "trust_remote_code", "subfolder", "gguf_file", "add_bos_token")
_CONFIG_ARGS = ("revision", "trust_remote_code", "subfolder", "gguf_file")

_METRIC_KEYS = ("metric", "aggregation", "higher_is_better")

_OTHER_LIMITS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")
"""Other names of a limit on new tokens, and transformers' limit on all of them."""
_SAMPLING = ("seed", "temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""What would change how samples are drawn without the options' knowledge."""


class TofuTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval ships no types: the base is Any
    """A task on TOFU.

    Besides lm-eval's own keys the YAML may hold:

    - `scored`: answer columns whose log-likelihoods are asked for, in order;
    - `generate`: whether a greedy answer is asked for too (`generation_kwargs` says how);
    - `novel`: whether the gold answer is scored once more from its first novel fact on, the words before it as context;
    - `sampled`: whether the option `best_of_n` says how many answers are drawn in its place;
    - `reference`: `{option: ..., record: ...}`, the option that names a reference run of the same task and the metric
      that holds its per-document record;
    - `rows`: a hook that gets the `Options` and returns the rows, each with `set` and `index`. A row may have
      `messages`, the turns that ask it in place of its question, `opening`, words that begin the answer, and `family`,
      which tells several rows of one index apart;
    - `record`: a hook that gets a row and what the model said to it (`lm_eval_tofu.tasks.hooks.Scored`), and returns
      the document's record;
    - `metric_list`: the headline metrics, whose aggregations get the records of all documents;
    - `more_metrics`: a hook that gets the `Options` and whether the model reasons, and returns the other metrics.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        cache_dir: str | None = None,
        download_mode: Any = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Check options and reference, and load the rows; no model is needed for any of it."""
        config = dict(config or {})
        config.pop("class", None)
        _check_not_an_adapter(config["metadata"])
        self.scored: list[str] = config.pop("scored")
        self.generate: bool = config.pop("generate")
        self.sampled: bool = config.pop("sampled", False)
        self.novel: bool = config.pop("novel", False)
        reference: Mapping[str, str] | None = config.pop("reference", None)
        self.options = Options.from_metadata(config["metadata"])
        checks.check_model_name(config["metadata"])
        self._build_rows: Callable[[Options], list[Row]] = config.pop("rows")
        self._build_record: Callable[[Row, Scored], Record] = config.pop("record")
        reasons = config["metadata"].get("think_end_token") is not None
        self.metrics = [Metric(*(entry[key] for key in _METRIC_KEYS)) for entry in config["metric_list"]]
        self.metrics += config.pop("more_metrics")(self.options, reasons)
        config["metric_list"] = [
            dict(zip(_METRIC_KEYS, (name, _null_for_nan(aggregate), better), strict=True))
            for name, aggregate, better in self.metrics
        ]
        config["process_results"] = type(self).process_results  # without one, lm-eval looks up metrics of its own
        self._spans: dict[tuple[str, int, str | None], list[int]] = {}
        # Tokens from the first novel fact on; 0: all of the answer's, None: it has no fact.
        self._novel_spans: dict[tuple[str, int, str | None], int | None] = {}
        self._prompting = Prompting(apply_chat_template=False)
        self._tokenizer: Any = None
        self._model: Any = None
        self.seed: Any = 0
        self._tokens: dict[tuple[str, int, str | None], str] = {}
        self.settings: ArmSettings | None = None
        self._predict_only = False
        super().__init__(data_dir=data_dir, cache_dir=cache_dir, download_mode=download_mode, config=config)
        self.reference = self._load_reference(reference) if reference else None

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the rows through the YAML's `rows` hook.

        Raises:
            OptionError: The options leave none.
        """
        self.rows: list[Row] = list(_rows(self._build_rows, self.options, self.options.source))
        if not self.rows:
            raise OptionError(
                f"{self.config.task} has nothing to ask: the prompts that were chosen (families, formats, "
                "best_of_n_prompts) say nothing of the rows that were chosen (forget_rows); choose others"
            )
        self.dataset = {self.config.test_split: datasets.Dataset.from_list(self.rows)}

    def _load_reference(self, reference: Mapping[str, str]) -> Reference | None:
        value = getattr(self.options, reference["option"])
        if value is None:
            return None
        return load_reference(
            reference["option"],
            str(value),
            task=self.config.task,
            record_key=reference["record"],
            version=self.VERSION,
            split=self.options.forget_split,
            rows=self.rows,
        )

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build every document's requests, and make sure that their tokens and prompts are the right ones.

        Raises:
            PromptError: The tokenizer is unknown, or it and the flags do not give prompts that can be scored.
            ReferenceRunError: The reference run asked with other prompts.
        """
        if kwargs.get("cache_requests"):
            # lm-eval's key knows neither our options nor the data: another split's requests would come back.
            log.warning("%s ignores --cache_requests: its requests depend on --metadata", self.config.task)
            kwargs["cache_requests"] = False
        render: Callable[..., Any] | None = kwargs.get("chat_template")
        metadata = self.config.metadata
        self._model = getattr(render, "__self__", None) or backend.calling_model()
        self._is_server = _is_server(metadata, self._model)
        with_template = bool(kwargs.get("apply_chat_template"))
        self._takes_messages = self._is_server and with_template and _takes_messages(render)
        if self._is_server:
            checks.check_server_arguments(self.config.task, metadata, self._takes_messages)
        if not kwargs.get("rank"):
            checks.log_options(self.config.task, self.options, metadata)
            self._warn_about_a_part(kwargs.get("limit"), kwargs.get("samples"))
        if self._takes_messages:
            self._leave_to_the_server()
        self._tokenizer = None if self._takes_messages and not _names_tokenizer(metadata) else _tokenizer(metadata)
        self._special_tokens = {key: metadata.get(key) for key in ("add_bos_token", "prefix_token_id")}
        self._prompting = Prompting(
            apply_chat_template=bool(kwargs.get("apply_chat_template")),
            system_prompt=kwargs.get("system_instruction"),
            template_args=_template_args(metadata, self._model),
        )
        self._context_length = _context_length(metadata, self._model)
        if self._context_length is None and not self._is_server:
            self._context_length = _configured_length(metadata, self._tokenizer)
        if self._context_length is None and not self._is_server:
            _warn_once(
                "the model's context length is unknown, so prompts that do not fit are not found, and lm-eval cuts "
                "them: give max_length in --metadata (metadata= where the model is an object)"
            )
        if not self._takes_messages:
            self._warn_about_prompts()
        self._end_of_turn = [] if self._takes_messages else self._find_end_of_turn()
        if self.scored or self.novel:
            _check_tokenized_requests(self.config.task, self._model)
        self._encode_pair = _own_encoding(self._model)
        self._request_kwargs = self._generation_kwargs() if self.generate else {}
        self._tokens, self._generation_checked = {}, False
        if self.generate:
            self._reader = self._make_reader()
        super().build_all_requests(**kwargs)
        self.settings = self._effective_settings(kwargs.get("world_size", 1))
        self._warn_about_precision(self.settings)
        if self.reference is not None:
            first = {request.doc["index"]: str(request.args[0]) for request in reversed(self._instances)}
            self.reference.check_prompts({index: hash_string(prompt) for index, prompt in first.items()})
            self.reference.check_tokens({key[1]: digest for key, digest in self._tokens.items()})
            self.reference.check_settings(self.settings)
        self._model = None  # it would be kept in memory after the evaluation

    def _effective_settings(self, world_size: int) -> ArmSettings:
        """The record of what this run is; every process of several has its own documents and takes part."""
        tokens = dict(self._tokens)
        if world_size > 1 and self._model is not None:
            gathered = self._model.gather_object(tokens, dst=0)
            for each in gathered or ():  # None in all processes but the first, which alone writes results
                tokens |= each
        metadata, model, options = self.config.metadata, self._model, self.options
        in_order = [tokens[key] for key in sorted(tokens, key=str)]
        generation = backend.effective_generation(
            self._request_kwargs, options.best_of_n if self.sampled and self._request_kwargs.get("do_sample") else None
        )
        return ArmSettings(
            **backend.model_settings(model, metadata),
            softmax_dtype=backend.softmax_dtype(model) if self.scored or self.novel else None,
            chat_template=self._template_hash(),
            chat_template_args=self._prompting.template_args,
            system_prompt=self._prompting.system_prompt or None,
            special_tokens=backend.special_tokens(self._tokenizer, model, metadata),
            tokens=tokens_fingerprint(in_order) if in_order else None,
            scored_tokens=sum(int(each.partition(":")[0]) for each in in_order) if self.scored else None,
            documents=len(tokens) or len({request.doc_id for request in self._instances}),
            task=self.config.task,
            version=self.VERSION,
            data=str(options.source),
            data_commit=tofu.commit_of(options.source),
            data_fingerprint=rows_fingerprint(self.rows, ("question", "answer", *self.scored)),
            options=options.recorded(self.config.task),
            generation=generation,
            pinned=self._pins.known if self.generate else True,
            overruled=self._pins.overruled if self.generate else {},
        )

    def _template_hash(self) -> str | None:
        if not self._prompting.apply_chat_template:
            return None
        if self._takes_messages:
            return "the server's"
        return str(hash_string(str(self._tokenizer.chat_template)))[:12]

    def _warn_about_precision(self, settings: ArmSettings) -> None:
        half = ("bfloat16", "float16")
        if settings.checkpoint_dtype == "float32" and settings.weights_dtype in half:
            _warn_once(
                f"the checkpoint is of float32 and {settings.backend} runs it in {settings.weights_dtype}: pass "
                "dtype=float32 in --model_args, or evaluate every arm in the same way"
            )
        if settings.backend == "hf" and settings.softmax_dtype in half:
            _warn_once(
                f"hf computes log-probabilities in {settings.softmax_dtype}, where one near -10 has steps of 0.06: "
                "pass softmax_dtype=float32 in --model_args"
            )

    def dump_config(self) -> dict[str, Any]:
        """The task's configuration as lm-eval stores it with the results, with the record of the run's settings."""
        config: dict[str, Any] = super().dump_config()
        for entry, metric in zip(config["metric_list"], self.metrics, strict=False):
            entry["aggregation"] = repr(metric.aggregate)
        return config if self.settings is None else {**config, RECORD_KEY: self.settings.to_record()}

    def _warn_about_a_part(self, limit: int | None, samples: Sequence[int] | None) -> None:
        asked = limit if samples is None else len(samples)
        if self.metrics[0].name == "forget_quality" and asked is not None and asked < len(self.rows):
            log.warning(
                "forget_quality is of %d of %d rows (--limit, --samples): a p value depends on the number of rows, and "
                "fewer of them make any model look forgotten; compare it with no run on all rows",
                asked,
                len(self.rows),
            )

    def _leave_to_the_server(self) -> None:
        """Leave out what a backend cannot do that sends messages, not text: its server renders and ends the turns.

        Raises:
            OptionError: The task scores answers, or all of its rows begin the assistant's turn.
        """
        if self.scored or self.novel:
            raise OptionError(
                f"{self.config.task} scores answers, and a backend of chat completions gives no log-likelihoods: leave "
                "it out of --tasks, or use hf, vllm or local-completions"
            )
        kept = [row for row in self.rows if not row.get("opening")]
        if not kept:
            raise OptionError(
                f"{self.config.task}: all prompts that were chosen begin the assistant's turn, which a backend of chat "
                "completions cannot do: choose others, or use hf, vllm or local-completions"
            )
        if len(kept) == len(self.rows):
            return
        names = sorted({row["family"] for row in self.rows if row.get("opening")})
        log.warning(
            "%s leaves out %s: they begin the assistant's turn, which a backend of chat completions cannot do",
            self.config.task,
            ", ".join(names),
        )
        left_out = kept[0]["left_out"] + len(self.rows) - len(kept)
        self.rows = [{**row, "left_out": left_out} for row in kept]
        self.dataset = {self.config.test_split: datasets.Dataset.from_list(self.rows)}

    def _warn_about_prompts(self) -> None:
        if not self._prompting.apply_chat_template and getattr(self._tokenizer, "chat_template", None):
            _warn_once(
                f"the tokenizer {self._tokenizer.name_or_path} has a chat template, but --apply_chat_template is not "
                "given: the questions go out as plain text"
            )
        gguf_file = self.config.metadata.get("gguf_file")
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        if gguf_file and not has_template and not self.config.metadata.get("tokenizer"):
            _warn_once(
                f"the tokenizer in {gguf_file} has no chat template, which conversion to GGUF can lose: if the model "
                "was trained with one, name the original tokenizer (tokenizer=DIR in --model_args) and give "
                "--apply_chat_template"
            )
        if chat.dates_itself(self._tokenizer, self._prompting):
            _warn_once(
                "the chat template prints today's date: fix it, for example with "
                'chat_template_args={"date_string": "10 Apr 2025"} in --model_args, or results change from day to day'
            )
        text = chat.text_before_answer(self._tokenizer, self._prompting)
        if text:
            _warn_once(chat.TEXT_BEFORE_ANSWER % (text, '--model_args chat_template_args={"enable_thinking": false}'))

    def fewshot_context(self, doc: Row, num_fewshot: int = 0, **kwargs: Any) -> Any:
        """The document's prompt, rendered by the backend and compared with our own rendering.

        A backend that sends messages gets what it makes of them itself.

        Raises:
            OptionError: Few-shot examples are asked for; the benchmark has none.
            PromptError: The backend renders another prompt than the tokenizer does.
        """
        if num_fewshot:
            raise OptionError(
                f"num_fewshot={num_fewshot} does not fit {self.config.task}: the benchmark asks zero-shot"
            )
        messages, opening = _messages(doc), doc.get("opening", "")
        if self._takes_messages:
            return kwargs["chat_template"]([*self._prompting.system_turn(), *messages], add_generation_prompt=True)
        prompt = chat.render_dialogue(self._tokenizer, messages, self._prompting, opening)
        render = kwargs.get("chat_template")
        if self._prompting.apply_chat_template and render is not None:
            theirs = render([*self._prompting.system_turn(), *messages], add_generation_prompt=True)
            if theirs + opening != prompt:
                raise PromptError(
                    "the backend renders another prompt than the tokenizer that --model_args and --metadata name "
                    f"(…{theirs[-40:]!r} against …{prompt[-40:]!r}): "
                    "give both the same tokenizer and chat_template_args"
                )
        return prompt

    def construct_requests(self, doc: Row, ctx: str, **kwargs: Any) -> list[Instance]:
        """Log-likelihoods of the `scored` columns in order, then the generation."""
        metadata = kwargs["metadata"]
        requests: list[Instance] = []
        spans: list[int] = []
        digest = hashlib.sha256()
        for answer in self._answers(doc):
            encoded = chat.encode_answer(self._tokenizer, doc["question"], answer, self._prompting)
            chat.check_backend_tokens(self._tokenizer, encoded, **self._special_tokens, encode_pair=self._encode_pair)
            self._check_length(doc, len(encoded.prompt_ids) + len(encoded.answer_ids))
            spans.append(len(encoded.answer_ids))
            digest.update(json.dumps([encoded.prompt_ids, encoded.answer_ids]).encode())
            arguments = (chat.ExactContext(encoded.prompt), encoded.continuation)
            requests.append(Instance("loglikelihood", doc, arguments, len(requests), metadata))
        if self.novel:
            requests += self._novel_request(doc, len(requests), metadata)
        if self.generate:
            gen_kwargs = self._request_kwargs
            if not self._takes_messages:
                prompt_ids = chat.token_ids(self._tokenizer, ctx, self._prompting)
                self._check_length(doc, len(prompt_ids) + gen_kwargs["max_gen_toks"])
                self._check_generation_prompt(ctx, prompt_ids)
                digest.update(json.dumps(prompt_ids).encode())
            # A request for each sample: of the repeats of one, lm-eval's default filter would keep the first.
            for seed in self._sample_seeds(doc) if self.sampled else [{}]:
                requests.append(Instance("generate_until", doc, (ctx, gen_kwargs | seed), len(requests), metadata))
        self._spans[_key(doc)] = spans
        if not self._takes_messages:
            self._tokens[_key(doc)] = f"{sum(spans)}:{digest.hexdigest()[:12]}"
        return requests

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Take lm-eval's `--seed`: its last value, which is for what a task draws itself; None draws one."""
        super().set_fewshot_seed(seed)
        self.seed = np.random.SeedSequence(seed).entropy

    def _sample_seeds(self, doc: Row) -> list[dict[str, int]]:
        """The seed that each sample's request states, where the backend takes one, so that `--seed` repeats a run.

        vLLM's engine draws from requests in the order in which it schedules them, which its own seed does not fix. A
        server gets the same seed with every request from lm-eval, which would make all samples the same. transformers
        draws from torch's generator, which lm-eval seeds. vLLM's CPU build takes a seed, but its engine ends with an
        error as soon as it takes such a prompt in two parts ("CPU Generator does not use offset", vLLM 0.32).
        """
        count = self.options.best_of_n
        if self._is_server:
            # lm-eval asks a server for requests with the same arguments at once: not a seed for each row.
            key = [self.seed]
        elif backend.is_a(self._model, "VLLM") and not backend.is_vllm_on_cpu():
            key = [self.seed, doc["index"]]
        else:
            return [{}] * count
        # Some servers take 31 bits.
        return [{"seed": int(word) >> 1} for word in np.random.SeedSequence(key).generate_state(count)]

    def _check_generation_prompt(self, prompt: str, expected: list[int]) -> None:
        """Whether the backend puts a special token before what it generates from; one prompt shows the rule."""
        if self._generation_checked:
            return
        self._generation_checked = True
        actual = backend.generation_prompt_ids(self._model, prompt)
        if actual is not None:
            chat.check_backend_prompt(self._tokenizer, expected, actual)

    def _novel_request(self, doc: Row, number: int, metadata: Any) -> list[Instance]:
        """The request for the words before the answer's first novel fact, whose log-likelihood the rest is without.

        The rest itself is not asked for: it makes the same sequence of tokens as the whole answer, and lm-eval's hf
        backend takes two requests of one sequence for the same, and gives the second one the first one's scores.
        """
        background = families.background_of(self.options.source, retain_split(self.options.forget_split))
        split = first_fact(doc["question"], doc["answer"], background)
        self._novel_spans[_key(doc)] = None if split is None else 0
        if not split:
            return []
        encoded = chat.encode_answer(self._tokenizer, doc["question"], doc["answer"], self._prompting)
        place = encoded.continuation.find(doc["answer"]) + split
        words = encoded.continuation[:place]
        whole = encoded.prompt_ids + encoded.answer_ids
        before = chat.token_ids(self._tokenizer, encoded.prompt + words, self._prompting)
        if whole[: len(before)] != before or len(before) == len(encoded.prompt_ids):
            # One token holds the end of the words before and the beginning of the fact.
            self._novel_spans[_key(doc)] = None
            return []
        self._novel_spans[_key(doc)] = len(whole) - len(before)
        return [Instance("loglikelihood", doc, (chat.ExactContext(encoded.prompt), words), number, metadata)]

    def _generation_kwargs(self) -> dict[str, Any]:
        given = self.config.generation_kwargs
        _check_limit(given)
        kwargs = {**given, "until": [*_stops(given.get("until", [])), *self._end_of_turn]}
        self._pins = backend.pin_generation(self._model, self.config.metadata, sampled=self.sampled)
        if self._pins.overruled:
            named = ", ".join(f"{name}={str(value)[:40]}" for name, value in self._pins.overruled.items())
            _warn_once(
                f"the checkpoint's generation_config.json sets {named}: the tasks ask what the model itself would "
                "answer, and overrule it"
            )
        pins = self._pins.arguments
        if not self.sampled:
            backend.check_greedy(self.config.task, given)
            return {**pins, **kwargs}
        backend.check_neutral(self.config.task, given)
        kwargs = {**pins, **kwargs}
        for name in _SAMPLING:
            if name in given:
                why = "would make all samples the same" if name == "seed" else "is not how samples are drawn here"
                raise OptionError(
                    f"--gen_kwargs {name}={given[name]} {why}: leave it out, and give best_of_n_temperature or "
                    "best_of_n_top_p in --metadata where you need to"
                )
        temperature = self.options.best_of_n_temperature
        if temperature == 0:
            return {**kwargs, "do_sample": False}
        if given["do_sample"] is not True:
            raise OptionError(
                f"--gen_kwargs do_sample={given['do_sample']} does not fit {self.config.task}, which draws samples: "
                "leave it out, or give best_of_n=1 and best_of_n_temperature=0 in --metadata for one greedy answer"
            )
        # transformers would draw from the 50 likeliest tokens only; 0 takes the limit off, in vLLM too.
        sampling = {"do_sample": True, "temperature": temperature, "top_p": self.options.best_of_n_top_p}
        if not self._is_server or "top_k" in pins:  # OpenAI's own servers do not know it
            sampling["top_k"] = 0
        return {**kwargs, **sampling}

    def _make_reader(self) -> Reader:
        limit, think_end_token = self._request_kwargs["max_gen_toks"], self.config.metadata.get("think_end_token")
        if think_end_token is not None:
            _warn_once(
                f"reasoning and answer share max_gen_toks={limit}: reasoning that does not end within it is no answer "
                "and is counted as reasoning_unfinished, and nothing can tell which answers were cut "
                "(generations_cut has no value): pass a larger --gen_kwargs max_gen_toks=4096 to all arms"
            )
        return Reader(self._tokenizer, limit, think_end_token)

    def _answers(self, doc: Row) -> list[str]:
        """The different answers to score: what two columns share is asked once."""
        return list(dict.fromkeys(text for column in self.scored for text in _texts(doc[column])))

    def _find_end_of_turn(self) -> list[str]:
        """The special token that ends an assistant's turn; generation stops there and at end of sequence."""
        encoded = chat.encode_answer(self._tokenizer, "?", "!", self._prompting)
        special = set(self._tokenizer.all_special_ids)
        ends = [token for token in encoded.answer_ids if token in special]
        return [self._tokenizer.decode(ends[0])] if ends else []

    def _check_length(self, doc: Row, tokens: int) -> None:
        # Backends cut what is too long from the left with no more than a warning: a score of another prompt.
        if self._context_length is not None and tokens >= self._context_length:
            raise PromptError(
                f"{self.config.task}: row {doc['index']} needs {tokens + 1} tokens with its answer, the context is "
                f"{self._context_length}: raise max_model_len (vllm) or max_length (hf) in --model_args, "
                "or lower max_gen_toks in --gen_kwargs"
            )

    def process_results(self, doc: Row, results: Sequence[Any]) -> dict[str, Any]:
        """Turn log-likelihoods into losses per token, and let the YAML's hook make the record of them.

        Returns:
            The record as the value of the first metric, and of the others the fields that they are computed from.
        """
        if self._predict_only:
            return {"bypass": None}
        spans = self._spans[_key(doc)]
        loss = {
            # An infinite value would turn into a probability of 0, which looks like a number: NaN stays visible.
            answer: -float(result[0]) / span if math.isfinite(result[0]) else math.nan
            for answer, result, span in zip(self._answers(doc), results, spans, strict=False)
        }
        losses = {
            column: [loss[text] for text in doc[column]] if isinstance(doc[column], list) else loss[doc[column]]
            for column in self.scored
        }
        scored_number = len(spans)
        if self.novel:
            span = self._novel_spans[_key(doc)]
            if span:
                # The whole answer's log-likelihood less that of the words before: both of the same tokens.
                whole = -loss[doc["answer"]] * spans[self._answers(doc).index(doc["answer"])]
                value = whole - float(results[scored_number][0])
                loss["novel"] = losses["novel"] = -value / span if math.isfinite(value) else math.nan
                scored_number += 1
            elif span == 0:
                losses["novel"] = losses["answer"]
        if not all(map(math.isfinite, loss.values())):
            log.error(
                "%s: row %s (%r) has a log-likelihood that is not finite, so every metric that uses it has no value: "
                "load the model with dtype=float32 (or bfloat16 instead of float16), and check its weights",
                self.config.task,
                doc["index"],
                doc["question"],
            )
        generations = [self._reader.read(str(result)) for result in results[scored_number:]]
        if any(generation.holds_reasoning for generation in generations):
            _warn_once(
                "answers hold </think>: the reasoning before it is judged as part of the answer; pass "
                "think_end_token=</think> in --model_args and a larger --gen_kwargs max_gen_toks to all arms"
            )
        scored = Scored(
            task=self.config.task,
            version=self.VERSION,
            options=self.options,
            losses=losses,
            generations=generations,
            reference=self.reference.rows[doc["index"]] if self.reference else None,
            shown=self._shown(doc),
            tokens=self._tokens.get(_key(doc)),
        )
        record: dict[str, Any] = files.without_nan(self._build_record(doc, scored).to_json())
        first, *others = self.metrics
        return {first.name: record, **{metric.name: metric.value(record) for metric in others}}

    def override_metric(self, metric_name: str) -> None:
        """Take lm-eval's `--predict_only`, which replaces all metrics by one that computes nothing."""
        super().override_metric(metric_name)
        self._predict_only = True

    def _shown(self, doc: Row) -> list[Mapping[str, str]]:
        opening = doc.get("opening")
        begun = [{"role": "assistant", "content": opening}] if opening else []
        return [*self._prompting.system_turn(), *_messages(doc), *begun]


def preflight(names: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Check options, data and references of the named tasks before any model is loaded.

    Args:
        names: Names of tasks or groups; those that are not ours are passed over.
        metadata: What lm-eval hands to the tasks.

    Raises:
        TofuError: Something cannot be used; the message says what to do.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=dict(metadata))
    # One at a time: a group beside its members is lm-eval's error to report.
    for name in names:
        if name in manager.all_tasks:
            manager.load([name])


@functools.lru_cache(maxsize=16)
def _rows(build: Callable[[Options], list[Row]], options: Options, source: Source) -> tuple[Row, ...]:
    """A task's rows, which nothing changes: the early check and the evaluation share them.

    Args:
        build: The YAML's `rows` hook.
        options: What it is given.
        source: Where its data comes from: an environment variable can say so, besides the options.
    """
    return tuple(build(options))


def _null_for_nan(aggregate: Callable[[Sequence[Any]], float]) -> Callable[[Sequence[Any]], float | None]:
    """The aggregation with None in place of NaN: lm-eval writes it as null."""

    def aggregate_or_null(records: Sequence[Any]) -> float | None:
        value: float | None = files.without_nan(aggregate(records))
        return value

    return aggregate_or_null


def _key(doc: Row) -> tuple[str, int, str | None]:
    return doc["set"], doc["index"], doc.get("family")


def _messages(doc: Row) -> list[dict[str, str]]:
    """The turns that ask a document: its own, or its question."""
    messages: list[dict[str, str]] | None = doc.get("messages")
    return [{"role": "user", "content": doc["question"]}] if messages is None else messages


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _check_limit(given: Mapping[str, Any]) -> None:
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
    """The strings that end an answer besides the end of turn; lm-eval takes one alone as well as a list.

    Raises:
        OptionError: One is empty or no string.
    """
    stops = list(until) if isinstance(until, list | tuple) else [until]
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise OptionError(f"--gen_kwargs until={until!r} names no string that ends an answer: give one, or a list")
    return stops


def _own_encoding(model: Any) -> chat.EncodePair | None:
    """How the backend itself encodes a prompt and an answer; None where it does not, or asks a server for each text."""
    if not isinstance(model, TemplateLM) or getattr(model, "tokenizer_backend", "huggingface") in (None, "remote"):
        return None
    encode: chat.EncodePair = model._encode_pair
    return encode


def _check_tokenized_requests(task: str, model: Any) -> None:
    """Refuse scores of a server that gets text: where it puts a special token first, other tokens would be scored.

    Raises:
        OptionError: `tokenized_requests=False`.
    """
    if isinstance(model, TemplateAPI) and not model.tokenized_requests and model.tokenizer_backend is not None:
        raise OptionError(
            f"tokenized_requests=False in --model_args does not fit {task}: the server would split the text itself, so "
            "which of its tokens are the answer's is not known; leave it out"
        )


def _check_not_an_adapter(metadata: Mapping[str, Any]) -> None:
    """Refuse the folder of an adapter as the model, which backends do with a message about a missing config.json.

    Raises:
        OptionError: `pretrained` is one.
    """
    pretrained = metadata.get("pretrained")
    if not isinstance(pretrained, str):
        return
    folder = Path(pretrained, metadata.get("subfolder") or "")
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = "BASE"
    raise OptionError(
        f"pretrained={pretrained} in --model_args holds an adapter and no model: pass "
        f"pretrained={base},peft={pretrained} (vllm: pretrained={base},lora_local_path={pretrained})"
    )


def _is_server(metadata: Mapping[str, Any], model: Any) -> bool:
    """Whether the model answers behind an API: its backend says so, or its arguments name no model to load."""
    if model is not None:
        return isinstance(model, TemplateAPI)
    return "base_url" in metadata or ("model" in metadata and "pretrained" not in metadata)


def _takes_messages(render: Callable[..., Any] | None) -> bool:
    """Whether a backend hands the turns on as messages instead of rendering them to a text."""
    return render is not None and not isinstance(render([{"role": "user", "content": "?"}]), str)


def _names_tokenizer(metadata: Mapping[str, Any]) -> bool:
    return any(metadata.get(name) for name in ("tokenizer", "pretrained"))


def _tokenizer(metadata: Mapping[str, Any]) -> Any:
    """The tokenizer that the model's arguments name.

    Raises:
        PromptError: They name none, or it cannot be loaded.
    """
    name = metadata.get("tokenizer") or metadata.get("pretrained")
    if name is None:
        raise PromptError(
            'the tokenizer is unknown: pass metadata={"tokenizer": NAME} to simple_evaluate or TaskManager when the '
            "model is an object, --metadata tokenizer=NAME when --model_args name no pretrained model"
        )
    if not isinstance(name, str):
        if hasattr(name, "encode"):
            return name
        name = name.name_or_path
    arguments = {key: metadata[key] for key in _TOKENIZER_ARGS if metadata.get(key) is not None}
    if metadata.get("tokenizer"):
        arguments.pop("gguf_file", None)  # of the model: the tokenizer that is named apart has files of its own
    if metadata.get("tokenizer_revision"):
        arguments["revision"] = metadata["tokenizer_revision"]
    return _load_tokenizer(name, json.dumps(arguments, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _load_tokenizer(name: str, arguments: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, **json.loads(arguments))
    except (OSError, ValueError) as error:
        raise PromptError(
            f"the tokenizer {name!r} cannot be loaded ({' '.join(str(error).split())}): "
            "name a local directory or a hub id in tokenizer= or pretrained= of --model_args"
        ) from error


def _template_args(metadata: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The chat template's variables: those of the model object where it is known, since backends add their own."""
    arguments = dict(getattr(model, "chat_template_args", None) or metadata.get("chat_template_args") or {})
    thinking = getattr(model, "enable_thinking", metadata.get("enable_thinking"))
    return arguments if thinking is None else {"enable_thinking": thinking, **arguments}


def _context_length(metadata: Mapping[str, Any], model: Any) -> int | None:
    """The model's context in tokens, as far as the arguments or the model object tell."""
    length = metadata.get("max_model_len") or metadata.get("max_length") or getattr(model, "max_length", None)
    return int(length) if length else None


def _configured_length(metadata: Mapping[str, Any], tokenizer: Any) -> int | None:
    """What lm-eval reads from the model's config; it hands the model object itself over with a chat template only."""
    pretrained = metadata.get("pretrained")
    if pretrained is None:
        return None
    if isinstance(pretrained, str):
        arguments = {key: metadata[key] for key in _CONFIG_ARGS if metadata.get(key) is not None}
        config = _load_config(pretrained, json.dumps(arguments, sort_keys=True))
    else:
        config = getattr(pretrained, "config", None)
    return None if config is None else int(resolve_max_length(config, tokenizer))


@functools.lru_cache(maxsize=4)
def _load_config(name: str, arguments: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, **json.loads(arguments))
    except (OSError, ValueError):  # a format that only its backend reads
        return None


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
