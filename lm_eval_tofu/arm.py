"""What an arm is: the settings that took effect in a run, recorded with its results, and how two runs are compared.

Figures are compared between models, so whatever else changes a figure must be the same, or be known to differ. The
tasks write one `ArmSettings` into the configuration that lm-eval stores with every result (`configs.<task>.arm`);
references, report and model card compare two of them with `compare`. What a difference means is written down once, in
`FIELDS`, from which the table in docs/arms.md is generated.

Imports neither torch nor lm_eval: a report is made without them.
"""

import functools
import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSettings:
    """The settings that took effect when one task was run on one model.

    Values are those of JSON. None means "not known" where the description says so, else "not given".

    Attributes:
        model: `pretrained`, or the name that a server was asked for.
        revision: Branch, tag or commit that was asked for on the hub.
        commit: The commit that was loaded from the hub; None for local files, or where it is not known.
        subfolder: Folder of the model within a repository or directory.
        adapter: `peft=PATH` (hf) or `lora_local_path=PATH` (vllm).
        delta: Delta weights added to the model (hf).
        gguf_file: The GGUF file that the weights come from.
        weights: Fingerprint of the weights, adapter included (`weights_fingerprint`); None where they cannot be read.
        quantization: Method and bits of quantised weights.
        backend: As `--model` names it; the class of lm-eval where the model is an object of another one.
        weights_dtype: Type of the weights in memory; None: not known.
        checkpoint_dtype: Type that the checkpoint states; None: not known.
        softmax_dtype: Type in which log-probabilities are computed; None: not known, or the task scores no answer.
        batch_size: As the backend has it.
        chat_template: Hash of the chat template; None without `--apply_chat_template`.
        chat_template_args: Its variables.
        system_prompt: `--system_instruction`.
        special_tokens: Beginning and end of sequence, padding, `add_bos_token`, and the tokens that end a generation.
        think_end_token: Model argument of that name.
        tokens: Fingerprint of the token ids of all documents' prompts and scored answers; None behind a server of chat
            completions.
        scored_tokens: How many answer tokens are scored, over all documents.
        documents: How many documents were asked.
        task: Name of the task.
        version: Its version.
        data: The data source, as `--metadata` or the environment names it; directories with their whole path.
        data_commit: The commit of the data set that was read from the hub; None: local, or not known.
        data_fingerprint: Hash of the rows that the task is about.
        options: The task's options, defaults included.
        generation: How answers were generated: everything that is not plain greedy decoding's default; empty where the
            task generates none.
        pinned: Whether the backend was told all of that, so that no generation_config.json of the checkpoint and no
            server's default can change it.
        overruled: What the checkpoint's generation_config.json asked for and did not get.
        versions: Of lm-eval and the libraries that ran the model.
    """

    model: str
    revision: str | None = None
    commit: str | None = None
    subfolder: str | None = None
    adapter: str | None = None
    delta: str | None = None
    gguf_file: str | None = None
    weights: str | None = None
    quantization: str | None = None
    backend: str
    weights_dtype: str | None = None
    checkpoint_dtype: str | None = None
    softmax_dtype: str | None = None
    batch_size: str | None = None
    chat_template: str | None = None
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str | None = None
    special_tokens: Mapping[str, Any] = field(default_factory=dict)
    think_end_token: str | int | None = None
    tokens: str | None = None
    scored_tokens: int | None = None
    documents: int | None = None
    task: str
    version: Any = None
    data: str = ""
    data_commit: str | None = None
    data_fingerprint: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    pinned: bool = True
    overruled: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """As it is stored: a mapping of JSON values with the format's number."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return {"format": RECORD_FORMAT, **record}

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


class FieldRule(NamedTuple):
    """What a difference in one field means.

    Attributes:
        name: Of the field in `ArmSettings`; `options.x` and the like name a key of a mapping.
        words: What messages and the table call it.
        option: What the user sets it with.
        arms: Severity between two arms of a report.
        reference: Severity between a run and its reference run.
        runs: Severity between two runs that should be of one model.
        unknown: Whether None means "not known", which is not compared.
    """

    name: str
    words: str
    option: str
    arms: Severity
    reference: Severity
    runs: Severity
    unknown: bool = False


_MODEL_ARGS = "--model_args"
_IDENTITY = ("model", "revision", "commit", "subfolder", "adapter", "delta", "gguf_file")

FIELDS: tuple[FieldRule, ...] = (
    FieldRule("model", "model", "pretrained in --model_args", "equal", "equal", "refused"),
    FieldRule("revision", "revision", "revision in --model_args", "equal", "equal", "refused"),
    FieldRule("commit", "commit on the hub", "revision in --model_args", "equal", "equal", "refused", True),
    FieldRule("subfolder", "subfolder", "subfolder in --model_args", "equal", "equal", "refused"),
    FieldRule("adapter", "adapter", "peft (hf) or lora_local_path (vllm) in --model_args", "equal", "equal", "refused"),
    FieldRule("delta", "delta weights", "delta in --model_args", "equal", "equal", "refused"),
    FieldRule("gguf_file", "GGUF file", "gguf_file in --model_args", "equal", "equal", "refused"),
    FieldRule("weights", "weights", "the files that --model_args name", "equal", "equal", "refused", True),
    FieldRule("task", "task", "--tasks", "refused", "refused", "equal"),
    FieldRule("version", "task version", "the release of lm-eval-tofu", "refused", "refused", "equal"),
    FieldRule("options.forget_split", "forget split", "forget_split in --metadata", "refused", "refused", "refused"),
    FieldRule("options.forget_rows", "chosen rows", "forget_rows in --metadata", "refused", "refused", "equal"),
    FieldRule("data_fingerprint", "rows", "tofu in --metadata", "refused", "refused", "equal", True),
    FieldRule("options.families", "families", "families in --metadata", "refused", "equal", "equal"),
    FieldRule("options.formats", "formats", "formats in --metadata", "refused", "equal", "equal"),
    FieldRule(
        "options.best_of_n_prompts", "best_of_n_prompts", "best_of_n_prompts in --metadata", "refused", "equal", "equal"
    ),
    FieldRule("options", "option", "--metadata", "warned", "equal", "equal"),
    FieldRule(
        "scored_tokens", "scored tokens", "the tokenizer's end-of-turn token", "warned", "refused", "equal", True
    ),
    FieldRule(
        "tokens",
        "token ids",
        "--apply_chat_template, --system_instruction, chat_template_args, tokenizer",
        "warned",
        "refused",
        "equal",
        True,
    ),
    FieldRule("chat_template", "chat template", "--apply_chat_template", "warned", "equal", "equal"),
    FieldRule(
        "chat_template_args", "template argument", "chat_template_args in --model_args", "warned", "equal", "equal"
    ),
    FieldRule("system_prompt", "system prompt", "--system_instruction", "warned", "equal", "equal"),
    FieldRule("special_tokens.pad", "padding token", "the tokenizer", "equal", "equal", "equal"),
    FieldRule(
        "special_tokens.add_bos_token", "add_bos_token", "add_bos_token in --model_args", "equal", "equal", "equal"
    ),
    FieldRule(
        "special_tokens.ends_generation",
        "end-of-generation tokens",
        "eos_token_id in the checkpoint's generation_config.json",
        "warned",
        "equal",
        "equal",
        True,
    ),
    FieldRule("special_tokens", "special token", "the tokenizer", "warned", "equal", "equal"),
    FieldRule("think_end_token", "think_end_token", "think_end_token in --model_args", "warned", "equal", "equal"),
    FieldRule("generation", "decoding", "--gen_kwargs", "warned", "equal", "equal"),
    FieldRule("pinned", "decoding that the task sets itself", "--model", "warned", "equal", "equal"),
    FieldRule("backend", "backend", "--model", "warned", "warned", "equal", True),
    FieldRule("weights_dtype", "dtype", "dtype in --model_args", "warned", "warned", "equal", True),
    FieldRule("softmax_dtype", "softmax dtype", "softmax_dtype in --model_args", "warned", "warned", "equal", True),
    FieldRule(
        "quantization", "quantization", "the checkpoint; quantization in --model_args", "warned", "warned", "equal"
    ),
    FieldRule("batch_size", "batch size", "--batch_size", "warned", "equal", "equal", True),
    FieldRule("versions", "version", "the installed packages", "warned", "warned", "equal", True),
    FieldRule("checkpoint_dtype", "dtype of the checkpoint", "the checkpoint", "equal", "equal", "equal"),
    FieldRule("documents", "documents", "--limit, --samples", "equal", "equal", "equal"),
    FieldRule("data", "data source", "tofu in --metadata", "equal", "equal", "equal"),
    FieldRule("data_commit", "commit of the data", "tofu_revision in --metadata", "equal", "equal", "equal"),
    FieldRule("overruled", "generation_config.json of the checkpoint", "the checkpoint", "equal", "equal", "equal"),
)
"""Every field of `ArmSettings`, in the order of messages and of the table: what decides comes first."""

_NOT_COMPARED = ("options.retain_reference", "options.full_reference", "options.tofu", "options.tofu_revision")
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
        The differences, refused ones first, each group in the order of `FIELDS`.
    """
    same_weights = _comparable_weights(first.weights, second.weights) and first.weights == second.weights
    found: dict[str, Difference] = {}
    for rule in FIELDS:
        if rule.name in ("tokens", "scored_tokens") and first.documents != second.documents:
            continue  # of other documents; references compare theirs row by row
        if rule.name in _IDENTITY and same_weights:
            continue  # one model under two names
        if rule.name == "weights" and not _comparable_weights(first.weights, second.weights):
            continue
        for name, one, other in _pairs(rule.name, first, second):
            if name in found or name in _NOT_COMPARED or one == other:
                continue
            if rule.unknown and any(value is None or value == UNKNOWN_BACKEND for value in (one, other)):
                continue
            key = name.partition(".")[2]
            words = f"{key} {rule.words}" if rule.name == "versions" else f"{rule.words} {key}" if key else rule.words
            words = rule.words if rule.name == name else words
            severity = getattr(rule, purpose)
            found[name] = Difference(name, severity, words, (_text(one), _text(other)), rule.option)
    if "scored_tokens" in found:
        found.pop("tokens", None)
    order = {"refused": 0, "warned": 1, "equal": 2}
    return sorted(found.values(), key=lambda difference: order[difference.severity])


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
    clauses: dict[str, Difference] = {}
    values: dict[str, dict[str, list[str]]] = {}
    for task, of_arms in runs.items():
        first = next(iter(of_arms), "")
        for name, settings in of_arms.items():
            for difference in compare(of_arms[first], settings, "arms"):
                if difference.field in ignored or difference.severity == "equal":
                    continue
                if difference.severity == "refused":
                    raise OptionError(
                        f"{first!r} and {name!r} were asked {task} with other {difference.words} ("
                        f"{difference.values[0]}; {difference.values[1]}): evaluate both with the same "
                        f"({difference.option})"
                    )
                clauses.setdefault(difference.field, difference)
                having = values.setdefault(difference.field, {})
                for each, value in zip((first, name), difference.values, strict=True):
                    names = having.setdefault(value, [])
                    if each not in names:
                        names.append(each)
    told = {
        key: "; ".join(f"{value} in {_joined(names)}" for value, names in having.items())
        for key, having in values.items()
    }
    return [f"{clauses[key].differs} ({text}; set by {clauses[key].option})" for key, text in told.items()]


def _joined(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _comparable_weights(first: str | None, second: str | None) -> bool:
    """Whether two fingerprints were taken in the same way."""
    return bool(first and second) and str(first).partition(":")[0] == str(second).partition(":")[0]


def _pairs(name: str, first: ArmSettings, second: ArmSettings) -> Iterable[tuple[str, Any, Any]]:
    """The values that a rule is about, each with its name: one, or one for each key of a mapping."""
    attribute, _, key = name.partition(".")
    one, other = getattr(first, attribute), getattr(second, attribute)
    if key:
        yield name, one.get(key), other.get(key)
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for each in sorted(one.keys() | other.keys()):
            yield f"{attribute}.{each}", one.get(each), other.get(each)
    else:
        yield name, one, other


def _text(value: Any, longest: int = 80) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _identity(first: ArmSettings, second: ArmSettings) -> list[Difference]:
    names = {*_IDENTITY, "weights"}
    return [difference for difference in compare(first, second, "runs") if difference.field in names]


def has_same_weights(first: ArmSettings, second: ArmSettings) -> bool:
    """Whether two runs are known to have had the same weights."""
    return _comparable_weights(first.weights, second.weights) and first.weights == second.weights


def table() -> str:
    """The table of docs/arms.md: every field and what a difference in it does."""
    lines = [
        "| setting | set by | two arms of a report | run and reference | runs of one arm |",
        "|---|---|---|---|---|",
    ]
    said = {"refused": "refused", "warned": "warned of", "equal": "–"}
    for rule in FIELDS:
        severities = " | ".join(said[severity] for severity in (rule.arms, rule.reference, rule.runs))
        words = f"every other {rule.words}" if rule.name in ("options", "special_tokens") else rule.words
        lines.append(f"| {words} | {rule.option} | {severities} |")
    return "\n".join(lines)


# Fingerprints.

_WHOLE = 1 << 24
"""Files up to this many bytes are hashed whole."""
_SAMPLES, _SAMPLE_BYTES = 512, 4096
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "consolidated*.pth", "*.gguf")
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_ADAPTER_SETTINGS = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def weights_fingerprint(folder: Path, *, gguf_file: str | None = None, adapter: Path | None = None) -> str | None:
    """Fingerprint of a model's files, in a fraction of a second for any size.

    Files of more than 16 MiB are read in part: the beginning, where safetensors state every tensor's name, type and
    shape, and 512 blocks of 4 KiB spread evenly over the rest. Training changes most blocks; a change of single weights
    between the blocks is not seen.

    Args:
        folder: Of the model.
        gguf_file: The file that the weights come from, where it is not all of them.
        adapter: Folder of an adapter that was loaded on top.

    Returns:
        `files:` and 16 hexadecimal digits; None where no weights are found or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        files = [folder / gguf_file] if gguf_file else _weight_files(folder)
        if adapter is not None:
            found = [adapter / name for name in _ADAPTER_FILES if (adapter / name).is_file()]
            if not found:
                return None
            files += found[:1]
            settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
            kept = {name: settings.get(name) for name in _ADAPTER_SETTINGS}
            digest.update(json.dumps(kept, sort_keys=True).encode())
        for file in files:
            state = file.stat()
            digest.update(_file_digest(file.resolve(), state.st_size, state.st_mtime_ns))
    except (OSError, ValueError, AttributeError):
        return None
    return f"files:{digest.hexdigest()[:16]}" if files else None


def _weight_files(folder: Path) -> list[Path]:
    for pattern in _WEIGHT_FILES:
        # A folder of a merged model may still hold the adapter that was merged.
        files = sorted(file for file in folder.glob(pattern) if not file.name.startswith("adapter_"))
        if files:
            return files
    return []


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, modified: int) -> bytes:
    """Digest of one file; each task of a call asks for the same ones."""
    digest = hashlib.sha256(f"{size};".encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
            return digest.digest()
        digest.update(file.read(1 << 20))
        for number in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()


def tokens_fingerprint(tokens: Iterable[str]) -> str:
    """Fingerprint of several documents' token digests, in the order given: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:16]


def rows_fingerprint(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Fingerprint of the rows that a task asks about, whatever number of prompts it makes of each."""
    seen = {(str(row.get("set")), int(row["index"])): [row.get(column) for column in columns] for row in rows}
    content = json.dumps(sorted((*key, value) for key, value in seen.items()), ensure_ascii=False, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
    for file, settings in runs[1:]:
        differences = [
            each for each in _identity(runs[0][1], settings) if not (retrained and each.field in ("weights", "commit"))
        ]
        if differences:
            first = differences[0]
            fix = "name the directory or the file of one"
            if first.field == "weights":
                fix += "; a model that was trained again must be evaluated again, in all tasks"
            raise OptionError(
                f"{where} holds results of several models ({runs[0][1].name} in {runs[0][0]}; {settings.name} in "
                f"{file}; {first.words}: {first.values[0]}, {first.values[1]}): {fix}"
            )
