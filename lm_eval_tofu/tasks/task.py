"""The task class behind every YAML file of this directory.

One document may ask for several log-likelihoods and a generation. The class builds those requests with the tokens that
training uses, turns what comes back into losses and answers, and hands them to the YAML's hook for the record.
"""

import functools
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from lm_eval_tofu import chat, files, tofu
from lm_eval_tofu.arm import RECORD_KEY, ArmSettings
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.fingerprints import rows_fingerprint, tokens_fingerprint
from lm_eval_tofu.tasks import TASKS_DIR, backend, checks, decoding, families, harness
from lm_eval_tofu.tasks.generations import Reader
from lm_eval_tofu.tasks.hooks import Scored
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.prompter import Prompter, without_openings
from lm_eval_tofu.tasks.records import Record
from lm_eval_tofu.tasks.reference import Reference, load_reference
from lm_eval_tofu.tasks.reported import Metric
from lm_eval_tofu.tasks.rows import Row
from lm_eval_tofu.tofu import Source, retain_split

log = logging.getLogger(__name__)

_METRIC_KEYS = ("metric", "aggregation", "higher_is_better")


class Requested(NamedTuple):
    """The tokens of a document's requests.

    Attributes:
        spans: Number of scored tokens of each answer.
        novel_span: Of the gold answer's, those from its first novel fact on; None where it has none.
        has_words_before: Whether the words before that fact are scored by a request of their own.
        tokens: Number of all scored tokens and hash of all token ids; None where a server renders the prompt.
        answer_text: The gold answer's tokens decoded; empty where they are not scored.
    """

    spans: list[int]
    novel_span: int | None = None
    has_words_before: bool = False
    tokens: str | None = None
    answer_text: str = ""


class TofuTask(ConfigurableTask):
    """A task on TOFU.

    Besides lm-eval's own keys the YAML holds:

    - `rows`: a hook that gets the `Options` and returns the rows, each with `set` and `index`. A row may have
      `messages`, the turns that ask it in place of its question, `opening`, words that begin the answer, and `family`,
      which tells several rows of one index apart;
    - `record`: a hook that gets a row and what the model said to it (`lm_eval_tofu.tasks.hooks.Scored`), and returns
      the document's record;
    - `metric_list`: the headline metrics, whose aggregations get the records of all documents;
    - `more_metrics`: a hook that gets the `Options` and whether the model reasons, and returns the other metrics;
    - `scored`: answer columns whose log-likelihoods are asked for, in order;
    - `novel`: whether the gold answer is scored from its first novel fact on too, the words before it as context;
    - `generate`: whether a greedy answer is asked for (`generation_kwargs` says how);
    - `sampled`: whether the option `best_of_n` says how many answers are drawn in its place;
    - `reference`: the option that names a reference run of the same task.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Check options and reference, and load the rows; no model is needed for any of it."""
        config = dict(config)
        config.pop("class", None)
        metadata = config["metadata"]
        checks.check_model(metadata)
        self.options = Options.from_metadata(metadata)
        self.build_rows: Callable[[Options], list[Row]] = config.pop("rows")
        self.build_record: Callable[[Row, Scored], Record] = config.pop("record")
        self.scored: list[str] = config.pop("scored")
        self.novel: bool = config.pop("novel", False)
        self.generate: bool = config.pop("generate")
        self.sampled: bool = config.pop("sampled", False)
        reference: str | None = config.pop("reference", None)
        reasons = metadata.get("think_end_token") is not None
        self.metrics = [Metric(*(entry[key] for key in _METRIC_KEYS)) for entry in config["metric_list"]]
        self.metrics += config.pop("more_metrics")(self.options, reasons)
        config["metric_list"] = [
            dict(
                zip(_METRIC_KEYS, (metric.name, _null_for_nan(metric.of_values), metric.higher_is_better), strict=True)
            )
            for metric in self.metrics
        ]
        config["process_results"] = type(self).process_results  # without one, lm-eval looks up metrics of its own
        self.seed: Any = 0
        self.settings: ArmSettings | None = None
        self.requested: dict[tuple[str, int, str | None], Requested] = {}
        self._prompter: Prompter | None = None
        self._model: Any = None
        self._predict_only = False
        super().__init__(config=config)
        if "rows" not in vars(self):  # lm-eval 0.5 downloads when the data is asked for
            self.download()
        self.reference = self._load_reference(reference) if reference else None

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the rows through the YAML's `rows` hook.

        Raises:
            OptionError: The options leave none.
        """
        self._set_rows(list(_rows(self.build_rows, self.options, self.options.source)))
        if not self.rows:
            raise OptionError(
                f"{self.config.task} has no prompts left: none of the chosen prompts (families, formats, "
                "best_of_n_prompts) can be used with the chosen rows (forget_rows); choose others"
            )

    def _set_rows(self, rows: list[Row]) -> None:
        self.rows = rows
        self.dataset = {self.config.test_split: datasets.Dataset.from_list(rows)}

    def _load_reference(self, option: str) -> Reference | None:
        value = getattr(self.options, option)
        if value is None:
            return None
        split = self.options.forget_split
        return load_reference(
            option, str(value), task=self.config.task, version=self.VERSION, split=split, rows=self.rows
        )

    # Requests.

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build every document's requests, and make sure that their tokens and prompts are the right ones.

        Raises:
            PromptError: The tokenizer is unknown, or it and the flags do not give prompts that can be scored.
            ReferenceRunError: The reference run asked with other prompts.
        """
        task, metadata = self.config.task, self.config.metadata
        if kwargs.get("cache_requests"):
            # lm-eval's key knows neither our options nor the data: another split's requests would come back.
            log.warning("%s ignores --cache_requests: its requests depend on --metadata", task)
            kwargs["cache_requests"] = False
        render: Callable[..., Any] | None = kwargs.get("chat_template")
        self._model = getattr(render, "__self__", None) or harness.calling_model()
        self._prompter = prompter = Prompter(
            task,
            metadata,
            self._model,
            render=render,
            apply_chat_template=bool(kwargs.get("apply_chat_template")),
            system_prompt=kwargs.get("system_instruction"),
        )
        if not kwargs.get("rank"):
            checks.log_options(task, self.options, metadata)
            self._warn_about_a_subset(kwargs.get("limit"), kwargs.get("samples"))
        if self.scored or self.novel:
            checks.check_scoring(task, self._model, prompter.sends_messages)
        if prompter.sends_messages:
            self._set_rows(without_openings(task, self.rows))
        self._pins, self._generation = decoding.Pins({}, True, {}), {}
        if self.generate:
            self._pins = decoding.pin_generation(self._model, metadata, sampled=self.sampled)
            self._generation = decoding.request_arguments(
                task,
                self.config.generation_kwargs,
                self._pins,
                prompter.end_of_turn,
                self.options if self.sampled else None,
                prompter.is_server,
            )
            self._reader = Reader(prompter.tokenizer, self._generation["max_gen_toks"], metadata.get("think_end_token"))
        self.requested = {}
        super().build_all_requests(**kwargs)
        self.settings = self._effective_settings(kwargs.get("world_size", 1))
        _warn_about_precision(self.settings)
        if self.reference is not None:
            first = {request.doc["index"]: str(request.args[0]) for request in reversed(self.instances)}
            self.reference.check_prompts({index: harness.hash_string(prompt) for index, prompt in first.items()})
            self.reference.check_tokens({key[1]: each.tokens for key, each in self.requested.items() if each.tokens})
            self.reference.check_settings(self.settings)
        self._model = None  # it would be kept in memory after the evaluation
        prompter.release()

    def fewshot_context(self, doc: Row, num_fewshot: int = 0, **kwargs: Any) -> Any:
        """The document's prompt, rendered by the backend and compared with our own rendering.

        Raises:
            OptionError: Few-shot examples are asked for; the benchmark has none.
            PromptError: The backend renders another prompt than the tokenizer does.
        """
        if num_fewshot:
            raise OptionError(
                f"num_fewshot={num_fewshot} does not fit {self.config.task}: the benchmark asks zero-shot"
            )
        assert self._prompter is not None
        return self._prompter.context(doc)

    def construct_requests(self, doc: Row, ctx: str, **kwargs: Any) -> list[Instance]:
        """Log-likelihoods of the `scored` columns in order and of the words before the novel part, then generations."""
        prompter = self._prompter
        assert prompter is not None
        requests: list[tuple[str, tuple[Any, Any]]] = []
        spans: list[int] = []
        answer_text = ""
        digest = hashlib.sha256()
        for answer in self._answers(doc):
            encoded = prompter.encode(doc, answer)
            spans.append(len(encoded.answer_ids))
            digest.update(json.dumps([encoded.prompt_ids, encoded.answer_ids]).encode())
            requests.append(("loglikelihood", (chat.ExactContext(encoded.prompt), encoded.continuation)))
            if answer == doc["answer"]:
                answer_text = chat.decoded_answer(prompter.tokenizer, encoded.answer_ids)
        before = None
        if self.novel:
            background = families.background_of(self.options.source, retain_split(self.options.forget_split))
            before = prompter.before_novel_part(doc, background)
            if before and before.words:
                # The rest itself is not asked for: it makes the same sequence of tokens as the whole answer, and
                # lm-eval's hf backend gives the second of two such requests the first one's scores.
                requests.append(("loglikelihood", (before.context, before.words)))
        if self.generate:
            if not prompter.sends_messages:
                prompt_ids = prompter.generation_ids(doc, ctx, self._generation["max_gen_toks"])
                digest.update(json.dumps(prompt_ids).encode())
            # A request for each sample: of the repeats of one, lm-eval's default filter would keep the first.
            seeds: list[dict[str, int]] = [{}]
            if self.sampled:
                count = self.options.best_of_n
                seeds = decoding.sample_seeds(self._model, self.seed, doc["index"], count, prompter.is_server)
            requests += [("generate_until", (ctx, self._generation | seed)) for seed in seeds]
        self.requested[_key(doc)] = Requested(
            spans,
            before.span if before else None,
            bool(before and before.words),
            None if prompter.sends_messages else f"{sum(spans)}:{digest.hexdigest()[:12]}",
            answer_text,
        )
        # lm-eval 0.4 names task and document in `metadata`, 0.5 by arguments of their own.
        known = {"doc_id": kwargs.get("doc_id"), "target": doc["answer"]}
        if "metadata" in kwargs:
            known = {"metadata": kwargs["metadata"]}
        return [
            Instance(kind, doc, arguments, idx=number, task_name=self.config.task, **known)
            for number, (kind, arguments) in enumerate(requests)
        ]

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Take lm-eval's `--seed`: its last value, which is for what a task draws itself; None draws one."""
        super().set_fewshot_seed(seed)
        self.seed = np.random.SeedSequence(seed).entropy

    def _answers(self, doc: Row) -> list[str]:
        """The different answers to score: an answer that occurs in two columns is scored once."""
        columns = (doc[column] for column in self.scored)
        texts = [text for value in columns for text in (value if isinstance(value, list) else [value])]
        return list(dict.fromkeys(texts))

    def _warn_about_a_subset(self, limit: int | None, samples: Sequence[int] | None) -> None:
        asked = limit if samples is None else len(samples)
        if self.metrics[0].name == "forget_quality" and asked is not None and asked < len(self.rows):
            log.warning(
                "forget_quality was computed on %d of %d rows (--limit, --samples): a p value depends on the number "
                "of rows, and fewer of them make any model look forgotten; do not compare it with a run on all rows",
                asked,
                len(self.rows),
            )

    # Results.

    def process_results(self, doc: Row, results: Sequence[Any]) -> dict[str, Any]:
        """Turn log-likelihoods into losses per token, and let the YAML's hook make the record of them.

        Returns:
            The record as the value of the first metric, and for each other one the field that it is computed from, or
            those fields by name.
        """
        if self._predict_only:
            return {"bypass": None}
        requested = self.requested[_key(doc)]
        losses = self._losses(doc, requested, [result[0] for result in results if isinstance(result, tuple | list)])
        generations = [self._reader.read(str(result)) for result in results if not isinstance(result, tuple | list)]
        if any(generation.holds_reasoning for generation in generations):
            checks.warn_once(
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
            shown=self._prompter.shown(doc) if self._prompter else (),
            tokens=requested.tokens,
            answer_text=requested.answer_text,
        )
        record: dict[str, Any] = files.without_nan(self.build_record(doc, scored).to_json())
        first, *others = self.metrics
        return {first.name: record, **{metric.name: metric.value(record) for metric in others}}

    def _losses(self, doc: Row, requested: Requested, logprobs: Sequence[float]) -> dict[str, Any]:
        """Mean negative log-probability per token, by answer column; one that is not finite is NaN and logged."""
        spans = requested.spans
        loss = {
            # An infinite value would turn into a probability of 0, which looks like a number: NaN stays visible.
            answer: -float(logprob) / span if math.isfinite(logprob) else math.nan
            for answer, logprob, span in zip(self._answers(doc), logprobs, spans, strict=False)
        }
        losses = {
            column: [loss[text] for text in doc[column]] if isinstance(doc[column], list) else loss[doc[column]]
            for column in self.scored
        }
        if requested.novel_span and not requested.has_words_before:
            losses["novel"] = losses["answer"]
        elif requested.novel_span:
            # The whole answer's log-likelihood less that of the words before: both of the same tokens.
            whole = -loss[doc["answer"]] * spans[self._answers(doc).index(doc["answer"])]
            value = whole - float(logprobs[len(spans)])
            loss["novel"] = losses["novel"] = -value / requested.novel_span if math.isfinite(value) else math.nan
        if not all(map(math.isfinite, loss.values())):
            log.error(
                "%s: row %s (%r) has a log-likelihood that is not finite, so every metric that uses it has no value: "
                "load the model with dtype=float32 (or bfloat16 instead of float16), and check its weights",
                self.config.task,
                doc["index"],
                doc["question"],
            )
        return losses

    def higher_is_better(self) -> dict[str, bool | None]:
        """Whether more of a metric is better, by name; None where it is neither."""
        return {metric.name: metric.higher_is_better for metric in self.metrics}

    def aggregate(self, bootstrap_iters: int | None = None) -> Any:
        """Metrics without lm-eval 0.5's bootstrap over documents, which are not independent within an author."""
        return super().aggregate(bootstrap_iters=0)

    def override_metric(self, metric_name: str) -> None:
        """Take lm-eval's `--predict_only`, which replaces all metrics by one that computes nothing."""
        super().override_metric(metric_name)
        self._predict_only = True

    # Settings.

    def dump_config(self) -> dict[str, Any]:
        """The task's configuration as lm-eval stores it with the results, with the record of the run's settings."""
        config: dict[str, Any] = super().dump_config()
        for entry, metric in zip(config["metric_list"], self.metrics, strict=False):
            entry["aggregation"] = repr(metric.aggregate)
        return config if self.settings is None else {**config, RECORD_KEY: self.settings.to_record()}

    def _effective_settings(self, world_size: int) -> ArmSettings:
        """The record of what this run is; with several processes, each contributes its own documents."""
        metadata, model, options, prompter = self.config.metadata, self._model, self.options, self._prompter
        assert prompter is not None
        tokens = {key: each.tokens for key, each in self.requested.items() if each.tokens}
        if world_size > 1 and model is not None:
            gathered = model.gather_object(tokens, dst=0)
            for each in gathered or ():  # None in all processes but the first, which alone writes results
                tokens |= each
        in_order = [tokens[key] for key in sorted(tokens, key=str)]
        is_sampled = self.sampled and self._generation.get("do_sample")
        return ArmSettings(
            **backend.model_settings(model, metadata),
            softmax_dtype=backend.softmax_dtype(model) if self.scored or self.novel else None,
            chat_template=prompter.template_hash(),
            chat_template_args=prompter.prompting.template_args,
            system_prompt=prompter.prompting.system_prompt or None,
            special_tokens=backend.special_tokens(prompter.tokenizer, model, metadata),
            tokens=tokens_fingerprint(in_order) if in_order else None,
            scored_tokens=sum(int(each.partition(":")[0]) for each in in_order) if self.scored else None,
            documents=len(tokens) or len(self.requested),
            task=self.config.task,
            version=self.VERSION,
            data=str(options.source),
            data_commit=tofu.commit_of(options.source),
            data_fingerprint=rows_fingerprint(self.rows, ("question", "answer", *self.scored)),
            options=options.recorded(self.config.task),
            generation=decoding.effective_generation(self._generation, options.best_of_n if is_sampled else None),
            pinned=self._pins.known,
            overruled=self._pins.overruled,
        )


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
    # One at a time: if a group and its members are both named, lm-eval reports the error.
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


def _warn_about_precision(settings: ArmSettings) -> None:
    half = ("bfloat16", "float16")
    if settings.checkpoint_dtype == "float32" and settings.weights_dtype in half:
        checks.warn_once(
            f"the checkpoint is of float32 and {settings.backend} runs it in {settings.weights_dtype}: pass "
            "dtype=float32 in --model_args, or evaluate every arm in the same way"
        )
    if settings.backend == "hf" and settings.softmax_dtype in half:
        checks.warn_once(
            f"hf computes log-probabilities in {settings.softmax_dtype}, where one near -10 has steps of 0.06: "
            "pass softmax_dtype=float32 in --model_args"
        )
