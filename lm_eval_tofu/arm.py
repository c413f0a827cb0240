"""What an arm is: the settings that took effect in a run, recorded with its results, and how two runs are compared.

Figures are compared between models, so whatever else changes a figure must be the same, or be known to differ. The
tasks write one `ArmSettings` into the configuration that lm-eval stores with every result (`configs.<task>.arm`);
references, report and model card compare two of them with `compare`. Each field states what a difference in it means;
the table in docs/comparing.md is generated from that.

Imports neither torch nor lm_eval: a report is made without them.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from lm_eval_tofu import files
from lm_eval_tofu.errors import OptionError

RECORD_KEY = "arm"
"""Where a task's configuration in lm-eval's results holds the record."""
UNKNOWN_BACKEND = "?"
"""In place of a backend's name where there was no model yet, as in the check before a sweep."""
RECORD_FORMAT = 1
"""Rises when a field is added or gets another meaning; a record of another format is refused."""

Purpose = Literal["arms", "reference", "runs"]
"""What is compared: two arms of a report, a run and its reference run, two runs that should be of one model."""
Severity = Literal["refused", "warned", "equal"]
_SEVERITIES = get_args(Severity)


class Rule(NamedTuple):
    """What a difference in a field of `ArmSettings` means.

    Attributes:
        words: What messages and the table call the field.
        option: What the user sets it with.
        arms: Severity between two arms of a report.
        reference: Severity between a run and its reference run.
        runs: Severity between two runs that should be of one model.
        unknown: Whether None means "not known", which is not compared, and not "not given".
        key: Of a mapping, where the rule is about one of its keys; the rule without a key is about all others.
    """

    words: str
    option: str
    arms: Severity = "equal"
    reference: Severity = "equal"
    runs: Severity = "equal"
    unknown: bool = False
    key: str = ""


_of_model = partial(Rule, runs="refused")
_of_task = partial(Rule, arms="refused", reference="refused")
_of_prompt = partial(Rule, arms="warned", reference="refused", unknown=True)
_warned = partial(Rule, arms="warned", reference="warned")
_warned_of_arms = partial(Rule, arms="warned")
_refused_of_arms = partial(Rule, arms="refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSettings:
    """The settings that took effect when one task was run on one model, as JSON values.

    Messages and the table follow the order of the fields: what decides comes first.
    """

    model: Annotated[str, _of_model("model", "pretrained in --model_args")]
    """`pretrained`, or the name that a server was asked for."""
    revision: Annotated[str | None, _of_model("revision", "revision in --model_args")] = None
    """Branch, tag or commit that was asked for on the hub."""
    commit: Annotated[str | None, _of_model("commit on the hub", "revision in --model_args", unknown=True)] = None
    """The commit that was loaded from the hub; None for local files too."""
    subfolder: Annotated[str | None, _of_model("subfolder", "subfolder in --model_args")] = None
    adapter: Annotated[str | None, _of_model("adapter", "peft (hf) or lora_local_path (vllm) in --model_args")] = None
    """`peft=PATH` or `lora_local_path=PATH`."""
    delta: Annotated[str | None, _of_model("delta weights", "delta in --model_args")] = None
    gguf_file: Annotated[str | None, _of_model("GGUF file", "gguf_file in --model_args")] = None
    weights: Annotated[str | None, _of_model("weights", "the files that --model_args name", unknown=True)] = None
    """Fingerprint of the weights, adapter included (`lm_eval_tofu.fingerprints.weights_fingerprint`)."""
    task: Annotated[str, _of_task("task", "--tasks")]
    version: Annotated[Any, _of_task("task version", "the release of lm-eval-tofu")] = None
    options: Annotated[
        Mapping[str, Any],
        _of_task("forget split", "forget_split in --metadata", runs="refused", key="forget_split"),
        _of_task("chosen rows", "forget_rows in --metadata", key="forget_rows"),
        _refused_of_arms("families", "families in --metadata", key="families"),
        _refused_of_arms("formats", "formats in --metadata", key="formats"),
        # More samples, or more varied ones, contain more leaks: the excess of one arm would be that of its sampling.
        _refused_of_arms("best_of_n", "best_of_n in --metadata", key="best_of_n"),
        _refused_of_arms("best_of_n_temperature", "best_of_n_temperature in --metadata", key="best_of_n_temperature"),
        _refused_of_arms("best_of_n_top_p", "best_of_n_top_p in --metadata", key="best_of_n_top_p"),
        _refused_of_arms("best_of_n_prompts", "best_of_n_prompts in --metadata", key="best_of_n_prompts"),
        # A reference's truth ratios are computed anew from its losses; a report compares those that the runs recorded.
        _refused_of_arms("epsilon of the truth ratio", "truth_ratio_eps in --metadata", key="truth_ratio_eps"),
        _refused_of_arms("option", "--metadata"),
    ] = field(default_factory=dict)
    """The task's options, defaults included."""
    data_fingerprint: Annotated[str | None, _of_task("rows", "tofu in --metadata", unknown=True)] = None
    """Hash of the rows that the task is about."""
    scored_tokens: Annotated[int | None, _of_prompt("scored tokens", "the tokenizer's end-of-turn token")] = None
    """How many answer tokens are scored, over all documents."""
    tokens: Annotated[
        str | None,
        _of_prompt("token ids", "--apply_chat_template, --system_instruction, chat_template_args, tokenizer"),
    ] = None
    """Fingerprint of the ids of all documents' prompts and scored answers; None behind a server of chat completions."""
    chat_template: Annotated[str | None, _warned_of_arms("chat template", "--apply_chat_template")] = None
    """Hash of the chat template; None without `--apply_chat_template`."""
    chat_template_args: Annotated[
        Mapping[str, Any], _warned_of_arms("template argument", "chat_template_args in --model_args")
    ] = field(default_factory=dict)
    system_prompt: Annotated[str | None, _warned_of_arms("system prompt", "--system_instruction")] = None
    special_tokens: Annotated[
        Mapping[str, Any],
        Rule("padding token", "the tokenizer", key="pad"),
        Rule("add_bos_token", "add_bos_token in --model_args", key="add_bos_token"),
        _warned_of_arms(
            "end-of-generation tokens",
            "eos_token_id in the checkpoint's generation_config.json",
            unknown=True,
            key="ends_generation",
        ),
        _warned_of_arms("special token", "the tokenizer"),
    ] = field(default_factory=dict)
    """Beginning and end of sequence, padding, `add_bos_token`, and the tokens that end a generation."""
    think_end_token: Annotated[
        str | int | None, _warned_of_arms("think_end_token", "think_end_token in --model_args")
    ] = None
    generation: Annotated[
        Mapping[str, Any],
        # A shorter answer has fewer facts. Stop strings contain the template's, which a base arm may lack.
        _refused_of_arms("token limit", "max_gen_toks in --gen_kwargs", key="max_gen_toks"),
        _warned_of_arms("decoding", "--gen_kwargs"),
    ] = field(default_factory=dict)
    """How answers were generated: what is not plain greedy decoding's default; empty where the task generates none."""
    pinned: Annotated[bool, _warned_of_arms("decoding that the task sets itself", "--model")] = True
    """Whether the backend was told all of that, so that no default of the checkpoint or a server can change it."""
    backend: Annotated[str, _warned("backend", "--model", unknown=True)]
    """As `--model` names it; the class of lm-eval where the model is an object of another one."""
    weights_dtype: Annotated[str | None, _warned("dtype", "dtype in --model_args", unknown=True)] = None
    """Type of the weights in memory."""
    softmax_dtype: Annotated[str | None, _warned("softmax dtype", "softmax_dtype in --model_args", unknown=True)] = None
    """Type in which log-probabilities are computed; None too where the task scores no answer."""
    quantization: Annotated[str | None, _warned("quantization", "the checkpoint; quantization in --model_args")] = None
    """Method and bits of quantised weights."""
    batch_size: Annotated[str | None, _warned_of_arms("batch size", "--batch_size", unknown=True)] = None
    versions: Annotated[Mapping[str, str], _warned("version", "the installed packages", unknown=True)] = field(
        default_factory=dict
    )
    """Of lm-eval and the libraries that ran the model."""
    checkpoint_dtype: Annotated[str | None, Rule("dtype of the checkpoint", "the checkpoint")] = None
    """Type that the checkpoint states."""
    documents: Annotated[int | None, Rule("documents", "--limit, --samples")] = None
    """How many documents were asked."""
    data: Annotated[str, Rule("data source", "tofu in --metadata")] = ""
    """As `--metadata` or the environment names it; directories with their whole path."""
    data_commit: Annotated[str | None, Rule("commit of the data", "tofu_revision in --metadata")] = None
    """The commit of the data set that was read from the hub; None: local, or not known."""
    overruled: Annotated[Mapping[str, Any], Rule("generation_config.json of the checkpoint", "the checkpoint")] = field(
        default_factory=dict
    )
    """What the checkpoint's generation_config.json asked for and did not get."""

    def to_record(self) -> dict[str, Any]:
        """As it is stored: a mapping of JSON values with the format's number."""
        return {"format": RECORD_FORMAT, **files.as_json_values(asdict(self))}

    @classmethod
    def from_record(cls, record: Any) -> "ArmSettings | None":
        """Read what `to_record` wrote; None where it is missing or of another format."""
        if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT:
            return None
        names = {each.name for each in fields(cls)}
        if record.keys() - {"format"} != names:
            return None
        return cls(**{name: record[name] for name in names})

    @property
    def name(self) -> str:
        """The model as a reader should see it: path or hub id, and whatever else tells it from its base model."""
        parts = [self.model if self.revision in (None, "main") else f"{self.model} @ {self.revision}"]
        parts += [f"{key}={value}" for key in ("subfolder", "gguf_file", "delta") if (value := getattr(self, key))]
        return " + ".join([*parts, *([self.adapter] if self.adapter else [])])

    @property
    def checkpoint(self) -> Path:
        """Where the weights that were trained last lie, for a model on this machine."""
        if self.adapter:
            return Path(self.adapter.partition("=")[2])
        return Path(self.model, self.subfolder or "")

    @property
    def decoding(self) -> str:
        """How answers were generated, in words."""
        rest = dict(self.generation)
        limit = rest.pop("max_gen_toks", None)
        stops = rest.pop("until", None)
        words = "greedy"
        if rest.pop("do_sample", False):
            words = f"{rest.pop('n', 1)} samples at temperature {rest.pop('temperature', 1.0)}"
            words += f", top_p {rest.pop('top_p', 1.0)}"
        words += "".join(f", {name} {value}" for name, value in sorted(rest.items()))
        words += f", at most {limit} tokens" if limit is not None else ""
        words += f", until {' or '.join(map(repr, stops))}" if stops else ""
        return words + ("" if self.pinned else " (the server's or backend's own settings may differ)")


RULES: Mapping[str, Rule] = {
    f"{name}.{rule.key}" if rule.key else name: rule
    for name, hint in get_type_hints(ArmSettings, include_extras=True).items()
    for rule in hint.__metadata__
}
"""The rules of all fields, in the order of messages and of the table; `mapping.key` names a key of a mapping."""
_IDENTITY = frozenset({"model", "revision", "commit", "subfolder", "adapter", "delta", "gguf_file"})
_NOT_COMPARED = frozenset(f"options.{name}" for name in ("retain_reference", "full_reference", "tofu", "tofu_revision"))
"""Options whose effect is compared elsewhere: the references by their rows, the data by their fingerprint."""


class Difference(NamedTuple):
    """One field in which two runs differ.

    Attributes:
        field: Its name; `mapping.key` for a key of a mapping.
        severity: What it means for the purpose of the comparison; "equal" where it does not matter.
        words: What the field is called.
        values: Of the first and of the second run, as text.
        option: What the user sets it with.
    """

    field: str
    severity: Severity
    words: str
    values: tuple[str, str]
    option: str

    @property
    def message(self) -> str:
        """The difference in one clause."""
        return f"{self.differs} ({self.values[0]}; {self.values[1]}), set by {self.option}"

    @property
    def differs(self) -> str:
        """What the field is called, as the subject of its sentence."""
        key = self.field.partition(".")[2]  # of a mapping: "special token eos" is one token
        plural = self.words.endswith("s") and not (key and self.words.endswith(f" {key}"))
        return f"{self.words} {'differ' if plural else 'differs'}"


def compare(first: ArmSettings, second: ArmSettings, purpose: Purpose) -> list[Difference]:
    """Compare two runs field by field.

    Args:
        first: One run; for a reference, the reference run.
        second: The other.
        purpose: What for, which decides what a difference means.

    Returns:
        The differences, refused ones first, each group in the order of `ArmSettings`.
    """
    skipped = set(_NOT_COMPARED)
    if first.documents != second.documents:
        skipped |= {"tokens", "scored_tokens"}  # of other documents; references compare theirs row by row
    if has_same_weights(first, second):
        skipped |= _IDENTITY  # one model under two names
    elif _kind(first.weights) != _kind(second.weights):
        skipped.add("weights")
    found: dict[str, Difference] = {}
    for of_rule, rule in RULES.items():
        for name, words, one, other in _values(of_rule, rule, first, second):
            is_unknown = rule.unknown and any(value is None or value == UNKNOWN_BACKEND for value in (one, other))
            if not (name in found or name in skipped or is_unknown or one == other):
                found[name] = Difference(name, getattr(rule, purpose), words, (_text(one), _text(other)), rule.option)
    if "scored_tokens" in found:
        found.pop("tokens", None)
    return sorted(found.values(), key=lambda difference: _SEVERITIES.index(difference.severity))


def _values(name: str, rule: Rule, *settings: ArmSettings) -> Iterator[tuple[str, str, Any, Any]]:
    """What a rule is about: field, what to call it, and its two values; once for each key of a whole mapping."""
    attribute = name.partition(".")[0]
    one, other = (getattr(each, attribute) for each in settings)
    if rule.key:
        yield name, rule.words, one.get(rule.key), other.get(rule.key)
    elif isinstance(one, Mapping):
        for key in sorted(one.keys() | other.keys()):
            words = f"{key} {rule.words}" if name == "versions" else f"{rule.words} {key}"
            yield f"{name}.{key}", words, one.get(key), other.get(key)
    else:
        yield name, rule.words, one, other


def _text(value: Any, longest: int = 80) -> str:
    if value is None:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _kind(weights: str | None) -> str | None:
    """How a fingerprint of weights was taken; only those of one kind can be compared."""
    return weights.partition(":")[0] if weights else None


def has_same_weights(first: ArmSettings, second: ArmSettings) -> bool:
    """Whether two runs are known to have had the same weights."""
    return bool(first.weights) and first.weights == second.weights


def differing(runs: Mapping[str, Mapping[str, ArmSettings]], ignored: Container[str] = ()) -> list[str]:
    """Compare several arms, task by task, each with the first one that has the task.

    Args:
        runs: By task and arm.
        ignored: Fields that are meant to differ, or are compared elsewhere.

    Returns:
        What is warned of, each field once for all tasks, with its values and the arms that have them.

    Raises:
        OptionError: A difference that is refused.
    """
    found: dict[str, tuple[Difference, dict[str, list[str]]]] = {}
    for task, of_arms in runs.items():
        first, *others = of_arms or ("",)
        for name in others:
            for difference in compare(of_arms[first], of_arms[name], "arms"):
                if difference.field in ignored or difference.severity == "equal":
                    continue
                if difference.severity == "refused":
                    raise OptionError(
                        f"{first!r} and {name!r} were asked {task} with other {difference.words} ("
                        f"{difference.values[0]}; {difference.values[1]}): evaluate both with the same "
                        f"{difference.words}, set by {difference.option}"
                    )
                _, having = found.setdefault(difference.field, (difference, {}))
                for arm, value in zip((first, name), difference.values, strict=True):
                    if arm not in having.setdefault(value, []):
                        having[value].append(arm)
    return [
        f"{difference.differs} ({'; '.join(f'{value} in {_joined(arms)}' for value, arms in having.items())}; set by "
        f"{difference.option})"
        for difference, having in found.values()
    ]


def _joined(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def table() -> str:
    """The table of docs/comparing.md: every field and what a difference in it does."""
    lines = [
        "| setting | set by | two arms of a report | run and reference | runs of one arm |",
        "|---|---|---|---|---|",
    ]
    shown = {"refused": "refused", "warned": "warned of", "equal": "–"}
    for name, rule in RULES.items():
        words = f"every other {rule.words}" if name in ("options", "special_tokens", "generation") else rule.words
        severities = " | ".join(shown[severity] for severity in (rule.arms, rule.reference, rule.runs))
        lines.append(f"| {words} | {rule.option} | {severities} |")
    return "\n".join(lines)


def settings_in(results: Mapping[str, Any], task: str) -> ArmSettings | None:
    """The record of one task in the content of a results file; None where it has none of this format."""
    config = results.get("configs")
    config = config.get(task) if isinstance(config, dict) else None
    return ArmSettings.from_record(config.get(RECORD_KEY)) if isinstance(config, dict) else None


def refuse_unless_same_model(where: str, runs: Sequence[tuple[str, ArmSettings]], *, retrained: bool = False) -> None:
    """Make sure that runs found in one place are of one model.

    Args:
        where: The option and its value, for the message.
        runs: File and settings of each.
        retrained: Whether other weights under the same name are the same model: where the newest of several runs of one
            task counts, the older ones may be of earlier weights.

    Raises:
        OptionError: They are of several models.
    """
    fields_of_model = {*_IDENTITY, "weights"} - ({"weights", "commit"} if retrained else set())
    for file, settings in runs[1:]:
        found = [each for each in compare(runs[0][1], settings, "runs") if each.field in fields_of_model]
        if found:
            fix = "name the directory or the file of one"
            if found[0].field == "weights":
                fix += "; a model that was trained again must be evaluated again, in all tasks"
            raise OptionError(
                f"{where} holds results of several models ({runs[0][1].name} in {runs[0][0]}; {settings.name} in "
                f"{file}; {found[0].words}: {found[0].values[0]}, {found[0].values[1]}): {fix}"
            )
