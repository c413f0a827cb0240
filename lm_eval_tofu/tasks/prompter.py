"""Renders and encodes the prompts of a run, and makes sure that the backend scores the tokens of training."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lm_eval_tofu import chat
from lm_eval_tofu.chat import EncodedAnswer, Prompting
from lm_eval_tofu.errors import OptionError, PromptError
from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.cut import first_fact
from lm_eval_tofu.tasks import checks, harness
from lm_eval_tofu.tasks.rows import Row

_CONFIG_ARGS = ("revision", "trust_remote_code", "subfolder", "gguf_file")
_TOKENIZER_ARGS = (*_CONFIG_ARGS, "add_bos_token")


class BeforeNovelPart(NamedTuple):
    """The words of an answer before its first novel fact.

    Attributes:
        context: The prompt.
        words: The words; empty where the answer begins with the fact.
        span: Number of the answer's tokens after them.
    """

    context: str
    words: str
    span: int


class Prompter:
    """The prompts of one task on one model.

    Attributes:
        is_server: Whether the model answers behind an API.
        sends_messages: Whether the backend sends the turns to its server, which renders them.
        tokenizer: The model's; None where the turns are sent and none is named.
        prompting: How a question becomes a prompt.
        end_of_turn: The special token that ends an assistant's turn, where there is one.
    """

    def __init__(
        self,
        task: str,
        metadata: Mapping[str, Any],
        model: Any,
        *,
        render: Callable[..., Any] | None,
        apply_chat_template: bool,
        system_prompt: str | None,
    ) -> None:
        """Find the tokenizer and what the backend does with a prompt, and warn of what would surprise.

        Args:
            task: Name of the task.
            metadata: The model's arguments, merged with the tasks' options by lm-eval.
            model: lm-eval's model object; None where there is none yet.
            render: The backend's own rendering of turns; None without a chat template.
            apply_chat_template: As lm-eval's flag.
            system_prompt: As lm-eval's `system_instruction`.

        Raises:
            OptionError: A server would ignore the template's arguments.
            PromptError: The tokenizer is unknown, or cannot render the turns.
        """
        self._task, self._model, self._metadata = task, model, metadata
        self.is_server = _is_server(metadata, model)
        self._render = render if apply_chat_template else None
        self.sends_messages = (
            self.is_server
            and self._render is not None
            and not isinstance(self._render([{"role": "user", "content": "?"}]), str)
        )
        if self.is_server:
            checks.check_server_arguments(task, metadata, self.sends_messages)
        is_named = any(metadata.get(name) for name in ("tokenizer", "pretrained"))
        self.tokenizer = _tokenizer(metadata, required=is_named or not self.sends_messages)
        self.prompting = Prompting(apply_chat_template, system_prompt, _template_args(metadata, model))
        self._context_length = self._find_context_length()
        self.end_of_turn: list[str] = []
        if not self.sends_messages:
            self._warn()
            special = set(self.tokenizer.all_special_ids)
            ends = [token for token in self._encode("?", "!").answer_ids if token in special]
            self.end_of_turn = [self.tokenizer.decode(ends[0])] if ends else []
        self._encode_pair = harness.encode_pair(model, self.tokenizer, metadata)
        self._is_generation_checked = False

    def context(self, doc: Row) -> Any:
        """A document's prompt, compared with the backend's own rendering; what is sent where it sends messages.

        Raises:
            PromptError: The backend renders another prompt than the tokenizer does.
        """
        messages, opening = turns(doc), doc.get("opening", "")
        theirs = None
        if self._render is not None:
            theirs = self._render([*self.prompting.system_turn(), *messages], add_generation_prompt=True)
        if self.sends_messages:
            return theirs
        prompt = chat.render_dialogue(self.tokenizer, messages, self.prompting, opening)
        if theirs is not None and theirs + opening != prompt:
            raise PromptError(
                "the backend renders another prompt than the tokenizer that --model_args and --metadata name "
                f"(…{theirs[-40:]!r} against …{prompt[-40:]!r}): "
                "give both the same tokenizer and chat_template_args"
            )
        return prompt

    def shown(self, doc: Row) -> list[Mapping[str, str]]:
        """All turns that the model is shown, system prompt and the beginning of its own turn included."""
        opening = doc.get("opening")
        begun = [{"role": "assistant", "content": opening}] if opening else []
        return [*self.prompting.system_turn(), *turns(doc), *begun]

    def encode(self, doc: Row, answer: str) -> EncodedAnswer:
        """The tokens of an answer to a document's question.

        Raises:
            PromptError: The backend would score other tokens, or they do not fit into its context.
        """
        encoded = self._encode(doc["question"], answer)
        if self._encode_pair is not None:
            chat.check_backend_tokens(self.tokenizer, encoded, self._encode_pair)
        self._check_length(doc, len(encoded.prompt_ids) + len(encoded.answer_ids))
        return encoded

    def before_novel_part(self, doc: Row, background: Background) -> BeforeNovelPart | None:
        """The words before the first novel fact of a document's answer; None where there is no fact to be scored."""
        split = first_fact(doc["question"], doc["answer"], background)
        if split is None:
            return None
        encoded = self._encode(doc["question"], doc["answer"])
        context = chat.ExactContext(encoded.prompt)
        if split == 0:
            return BeforeNovelPart(context, "", len(encoded.answer_ids))
        words = encoded.continuation[: encoded.continuation.find(doc["answer"]) + split]
        whole = encoded.prompt_ids + encoded.answer_ids
        before = chat.token_ids(self.tokenizer, encoded.prompt + words, self.prompting)
        if whole[: len(before)] != before or len(before) == len(encoded.prompt_ids):
            return None  # one token holds the end of the words before and the beginning of the fact
        return BeforeNovelPart(context, words, len(whole) - len(before))

    def generation_ids(self, doc: Row, prompt: str, limit: int) -> list[int]:
        """The ids of a prompt that up to `limit` tokens are generated from.

        Raises:
            PromptError: They do not fit into the context, or the backend adds or leaves out a special token.
        """
        ids = chat.token_ids(self.tokenizer, prompt, self.prompting)
        self._check_length(doc, len(ids) + limit)
        if not self._is_generation_checked:  # one prompt shows the rule
            self._is_generation_checked = True
            actual = harness.generation_prompt_ids(self._model, prompt)
            if actual is not None:
                chat.check_backend_prompt(self.tokenizer, ids, actual)
        return ids

    def template_hash(self) -> str | None:
        """Hash of the chat template; None without one."""
        if not self.prompting.apply_chat_template:
            return None
        return "the server's" if self.sends_messages else harness.hash_string(str(self.tokenizer.chat_template))[:12]

    def release(self) -> None:
        """Let go of the model, which would be kept in memory after the evaluation."""
        self._model = self._render = self._encode_pair = None

    def _encode(self, question: str, answer: str) -> EncodedAnswer:
        return chat.encode_answer(self.tokenizer, question, answer, self.prompting)

    def _find_context_length(self) -> int | None:
        """The model's context in tokens, from its arguments, the model object or the checkpoint's configuration."""
        metadata = self._metadata
        length = metadata.get("max_model_len") or metadata.get("max_length") or getattr(self._model, "max_length", None)
        if not length and not self.is_server:
            length = _configured_length(metadata)
            if length is None:
                checks.warn_once(
                    "the model's context length is unknown, so prompts that do not fit are not found, and lm-eval cuts "
                    "them: give max_length in --metadata (metadata= where the model is an object)"
                )
        return int(length) if length else None

    def _check_length(self, doc: Row, tokens: int) -> None:
        # Backends cut what is too long from the left with no more than a warning: a score of another prompt.
        if self._context_length is not None and tokens >= self._context_length:
            raise PromptError(
                f"{self._task}: row {doc['index']} needs {tokens + 1} tokens with its answer, the context is "
                f"{self._context_length}: raise max_model_len (vllm) or max_length (hf) in --model_args, "
                "or lower max_gen_toks in --gen_kwargs"
            )

    def _warn(self) -> None:
        """Warn of a chat template that is not used, was lost, prints the day's date or text before an answer."""
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        if has_template and not self.prompting.apply_chat_template:
            checks.warn_once(
                f"the tokenizer {self.tokenizer.name_or_path} has a chat template, but --apply_chat_template is not "
                "given: the questions go out as plain text"
            )
        gguf_file = self._metadata.get("gguf_file")
        if gguf_file and not has_template and not self._metadata.get("tokenizer"):
            checks.warn_once(
                f"the tokenizer in {gguf_file} has no chat template, which conversion to GGUF can lose: if the model "
                "was trained with one, name the original tokenizer (tokenizer=DIR in --model_args) and give "
                "--apply_chat_template"
            )
        if chat.dates_itself(self.tokenizer, self.prompting):
            checks.warn_once(
                "the chat template prints today's date: fix it, for example with "
                'chat_template_args={"date_string": "10 Apr 2025"} in --model_args, or results change from day to day'
            )
        text = chat.text_before_answer(self.tokenizer, self.prompting)
        if text:
            option = '--model_args chat_template_args={"enable_thinking": false}'
            checks.warn_once(chat.TEXT_BEFORE_ANSWER % (text, option))


def turns(doc: Row) -> list[dict[str, str]]:
    """The turns that ask a document: its own, or its question."""
    messages: list[dict[str, str]] | None = doc.get("messages")
    return [{"role": "user", "content": doc["question"]}] if messages is None else messages


def without_openings(task: str, rows: list[Row]) -> list[Row]:
    """The rows that a backend of chat completions can ask: all that leave the beginning of the answer to the model.

    Raises:
        OptionError: All of them begin it.
    """
    kept = [row for row in rows if not row.get("opening")]
    if not kept:
        raise OptionError(
            f"{task}: all prompts that were chosen begin the assistant's turn, which a backend of chat completions "
            "cannot do: choose others, or use hf, vllm or local-completions"
        )
    if len(kept) == len(rows):
        return rows
    names = sorted({row["family"] for row in rows if row.get("opening")})
    checks.log.warning(
        "%s leaves out %s: they begin the assistant's turn, which a backend of chat completions cannot do",
        task,
        ", ".join(names),
    )
    left_out = kept[0]["left_out"] + len(rows) - len(kept)
    return [{**row, "left_out": left_out} for row in kept]


def _is_server(metadata: Mapping[str, Any], model: Any) -> bool:
    """Whether the model answers behind an API: its backend says so, or its arguments name no model to load."""
    if model is not None:
        return isinstance(model, harness.TemplateAPI)
    return "base_url" in metadata or ("model" in metadata and "pretrained" not in metadata)


def _template_args(metadata: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The chat template's variables: those of the model object where it is known, since backends add their own."""
    arguments = dict(getattr(model, "chat_template_args", None) or metadata.get("chat_template_args") or {})
    thinking = getattr(model, "enable_thinking", metadata.get("enable_thinking"))
    return arguments if thinking is None else {"enable_thinking": thinking, **arguments}


def _tokenizer(metadata: Mapping[str, Any], required: bool) -> Any:
    """The tokenizer that the model's arguments name; None where they need not name one and do not.

    Raises:
        PromptError: They name none, or it cannot be loaded.
    """
    name = metadata.get("tokenizer") or metadata.get("pretrained")
    if not required:
        return None
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
    try:
        return _load("AutoTokenizer", name, json.dumps(arguments, sort_keys=True))
    except (OSError, ValueError) as error:
        raise PromptError(
            f"the tokenizer {name!r} cannot be loaded ({' '.join(str(error).split())}): "
            "name a local directory or a hub id in tokenizer= or pretrained= of --model_args"
        ) from error


def _configured_length(metadata: Mapping[str, Any]) -> int | None:
    """The context that the model's configuration states: for the check before a sweep, which has no model object."""
    config = metadata.get("pretrained")
    if isinstance(config, str):
        arguments = {key: metadata[key] for key in _CONFIG_ARGS if metadata.get(key) is not None}
        try:
            config = _load("AutoConfig", config, json.dumps(arguments, sort_keys=True))
        except (OSError, ValueError):  # a format that only its backend reads
            return None
    else:
        config = getattr(config, "config", None)
    return None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)


@functools.lru_cache(maxsize=8)
def _load(auto_class: str, name: str, arguments: str) -> Any:
    import transformers

    return getattr(transformers, auto_class).from_pretrained(name, **json.loads(arguments))
