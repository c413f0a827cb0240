"""Writes the model card of an audited checkpoint: its results as metadata for the hub, and a text that explains them.

Training writes a first card (`lm_eval_tofu.unlearn.card`). Its metadata are kept, and so is all text outside our part.
"""

import argparse
import itertools
import json
import logging
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu import __version__, files, tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import DataError, OptionError
from lm_eval_tofu.fingerprints import weights_fingerprint
from lm_eval_tofu.report import load, render, tables
from lm_eval_tofu.report.arms import CONTROLS, Arm, Results, TaskRun, is_mini
from lm_eval_tofu.report.audits import FORGET_QUALITY, UTILITY
from lm_eval_tofu.report.leaks import visible
from lm_eval_tofu.report.verdicts import verdicts
from lm_eval_tofu.tasks.options import is_followed
from lm_eval_tofu.tasks.reported import TASKS
from lm_eval_tofu.unlearn import card as first_card

log = logging.getLogger(__name__)

BEGIN, END = "<!-- lm-eval-tofu: results -->", "<!-- lm-eval-tofu: end of results -->"
"""Markers around our part of a card; text outside is the user's."""
RECORDS = ("unlearning.json", "training.json")
MINI = "mini"
FINETUNE = "finetune"
"""The method of a record that has forgotten nothing."""
PACKAGE_URL = "https://pypi.org/project/lm-eval-tofu/"

_OPTIONS = (
    *("method", "model", "forget_split", "split", "epochs", "learning_rate", "alpha", "beta", "gamma", "margin"),
    *("retain_loss", "retain_rows", "system_prompt", "weight_decay", "warmup", "lora_r", "seed"),
)
_OF_THE_RUN = ("effective_batch", "steps", "trainable_parameters", "weight_dtype", "weights")
"""Options and results of a training's record that the card shows."""
_NAMES = {
    "model": "started from",
    "split": "trained on",
    "warmup": "warm-up, epochs",
    "lora_r": "LoRA rank",
    "weight_dtype": "dtype of the weights",
    "weights": "fingerprint of the weights",
}
"""What readers see in place of a field's name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `lm-eval-tofu card`."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory of the model")
    parser.add_argument(
        "--results",
        nargs="+",
        required=True,
        metavar="RESULTS",
        help="results of lm_eval on the checkpoint, and as name=path those of other arms to set beside it, "
        "such as retain=results/retain",
    )


def run(args: argparse.Namespace) -> Path:
    """Fill in the card; see `fill_in`."""
    return fill_in(args.checkpoint, args.results)


def fill_in(checkpoint: Path, results: Sequence[str]) -> Path:
    """Write a checkpoint's `README.md`: metadata with the results, and a text that explains them.

    Args:
        checkpoint: Directory of the model.
        results: As `lm_eval_tofu.report.load.parse_arms` takes them: the checkpoint's own, and other arms.

    Returns:
        The card.

    Raises:
        OptionError: There is no checkpoint, its card or record cannot be read, or the results cannot.
    """
    if not any((checkpoint / name).is_file() for name in ("config.json", first_card.ADAPTER_CONFIG)):
        raise OptionError(
            f"CHECKPOINT {checkpoint} holds no model (config.json) and no adapters ({first_card.ADAPTER_CONFIG}): name "
            "the directory of one"
        )
    record_name, record = _record(checkpoint)
    loaded = load.load(load.parse_arms(results, "--results"), "--results")
    own = _own_arm(loaded, checkpoint)
    content = tables.build(loaded)
    text = _text(checkpoint, record_name, record, content, own)
    metadata, body = _first_card(checkpoint, record, own)
    before, begin, rest = body.rpartition(BEGIN)
    if begin and END in rest:
        body = before + text.strip() + rest.partition(END)[2]
    elif not body.strip() or first_card.CLOSING in body:
        body = f"# {checkpoint.resolve().name}\n\n{text}"
    else:
        body = f"{body.rstrip()}\n\n{text}"
    path = checkpoint / "README.md"
    whole = f"---\n{_with_results(metadata, checkpoint, record, content, own)}\n---\n\n{body.strip()}\n"
    render.write_output(path, render.encoded(whole), option="CHECKPOINT")
    return path


def _record(checkpoint: Path) -> tuple[str, Mapping[str, Any]]:
    """Name and content of the record of the training; both empty where there is none."""
    path = next((checkpoint / name for name in RECORDS if (checkpoint / name).is_file()), None)
    if path is None:
        return "", {}
    fix = "put the record of the training back"
    record = files.read_json(path, fix)
    for part in {"options", "data"} & record.keys():
        record[part] = record[part] or {}
        if not isinstance(record[part], dict):
            raise OptionError(f"{path}: {part!r} is no mapping: {fix}")
    return path.name, record


def _own_arm(results: Results, checkpoint: Path) -> Arm:
    """The arm that is the checkpoint: of its weights or path, else the one named so, or without another role.

    Raises:
        OptionError: None is plainly it, or results at its path are of other weights.
    """
    arms = results.arms
    same = [arm for arm in arms if any(_is_model(run, checkpoint) for run in arm.runs.values())]
    free = [arm for arm in arms if arm.name not in CONTROLS]
    for chosen in (same, [arm for arm in arms if arm.name == "unlearned"], free):
        if len(chosen) == 1:
            arm = chosen[0]
            if arm not in same:
                models = ", ".join(sorted({run.settings.name for run in arm.runs.values()})) or "no model"
                log.warning("%s: the results are of %s; make sure that this is the same model", checkpoint, models)
            return arm
    raise OptionError(
        f"--results names {', '.join(arm.name for arm in arms)}, and none of them is plainly {checkpoint}: give its "
        "own results as unlearned=path"
    )


def _is_model(run: TaskRun, checkpoint: Path) -> bool:
    """Whether a run was one of the checkpoint.

    Raises:
        OptionError: It was evaluated at its path, with other weights.
    """
    settings = run.settings
    if settings.adapter:
        now = weights_fingerprint(Path(settings.model, settings.subfolder or ""), adapter=checkpoint)
    else:
        now = weights_fingerprint(checkpoint, gguf_file=settings.gguf_file)
    if now is not None and now == settings.weights:
        return True
    try:
        same_path = settings.checkpoint.resolve() == checkpoint.resolve()
    except (OSError, ValueError):
        return False
    if same_path and now is not None and (settings.weights or "").startswith("files:"):
        raise OptionError(
            f"--results {run.path} are of other weights than {checkpoint} has now: evaluate the checkpoint again"
        )
    return same_path


def _first_card(checkpoint: Path, record: Mapping[str, Any], own: Arm) -> tuple[Any, str]:
    """The metadata and the text of the card that is there; where there is none, what training would have written."""
    import yaml
    from huggingface_hub import ModelCard

    path = checkpoint / "README.md"
    if not path.is_file():
        options = record.get("options", {})
        tags = ["unlearning", str(record["method"])] if "method" in record else []
        return first_card.metadata(checkpoint, options.get("model"), _dataset(record, own), tags), ""
    try:
        card = ModelCard.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise OptionError(f"{path} cannot be read ({what}): mend its metadata, or delete it") from error
    return card.data, card.text


def _with_results(metadata: Any, checkpoint: Path, record: Mapping[str, Any], content: tables.Tables, own: Arm) -> str:
    """The metadata as YAML, our results in place of older ones of ours; read back, so that the hub can too."""
    from huggingface_hub import EvalResult, ModelCard

    kept = [each for each in metadata.eval_results or [] if each.source_name != "lm-eval-tofu"]
    data = _dataset(record, own)
    split = content.results.split
    quality = own.runs.get(FORGET_QUALITY)
    ours = [
        EvalResult(
            task_type="text-generation",
            dataset_type=data.hub_id or "lm-eval-tofu-mini",
            dataset_name=f"{data.name} ({split})",
            # Most of model utility is about other rows.
            dataset_config=None if row.task == UTILITY else f"{split}_perturbed",
            dataset_split="train",
            metric_type=row.key,
            metric_name=_metric_name(row),
            metric_value=cell.value,
            source_name="lm-eval-tofu",
            # The hub shows no source without an address.
            source_url=f"https://huggingface.co/datasets/{data.hub_id}" if data.hub_id else PACKAGE_URL,
        )
        for row in content.main
        if (cell := row.cells[own.name]) is not None and math.isfinite(cell.value)
        # Of a part of the rows the p value is another test's.
        if not (row.key in ("forget_quality", "ks_statistic") and quality and quality.is_subset)
    ]
    metadata.eval_results = [*kept, *ours]
    metadata.model_name = metadata.model_name or checkpoint.resolve().name
    metadata.tags = list(dict.fromkeys([*(metadata.tags or []), "lm-eval-tofu", "tofu"]))
    named = [*_as_list(metadata.datasets), *([data.hub_id] if data.hub_id else [])]
    metadata.datasets = list(dict.fromkeys(named)) or None
    text = str(metadata.to_yaml())
    back: Any = ModelCard(f"---\n{text}\n---\n").data
    if len(back.eval_results or []) != len(metadata.eval_results):
        raise OptionError(f"{checkpoint / 'README.md'}: its metadata do not hold the results: mend or delete it")
    return text.strip()


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _metric_name(row: tables.Row) -> str:
    notes = [*(["percentage points"] if row.unit == "points" else []), *([f"n = {row.n}"] if row.n is not None else [])]
    return f"{row.label} ({', '.join(notes)})" if notes else row.label


def _dataset(record: Mapping[str, Any], own: Arm) -> first_card.Dataset:
    mini = is_mini(own)
    if mini or (mini is None and record.get("data", {}).get("source") == MINI):
        return first_card.MINIATURE
    sources = {run.source for run in own.runs.values() if _is_hub_id(run.source)}
    named = sources.pop() if len(sources) == 1 else tofu.HUB_ID
    return first_card.Dataset("TOFU" if named == tofu.HUB_ID else named, named)


def _is_hub_id(source: str) -> bool:
    try:
        return bool(source) and tofu.resolve_source(source).kind == "hub"
    except DataError:  # a directory of another machine
        return False


def _text(checkpoint: Path, record_name: str, record: Mapping[str, Any], content: tables.Tables, own: Arm) -> str:
    from markupsafe import Markup

    results, data = content.results, _dataset(record, own)
    options = {**record.get("options", {}), **{key: record[key] for key in ("method",) if key in record}}
    rows = [row for row in content.main if any(row.cells.values())]
    excesses = [cell.excess for row in rows if (cell := row.cells[own.name]) is not None]
    chat = bool(record.get("apply_chat_template", _has_chat_template(checkpoint)))
    command = _command(own, results.split, chat)
    return render.render(
        "card.md.j2",
        {
            "begin": Markup(BEGIN),
            "end": Markup(END),
            "summary": _summary(record, options, data),
            "split": results.split,
            "is_mini": data.hub_id is None,
            "dataset": "TOFU" if data.hub_id is None else data.name,
            "version": __version__,
            "verdict": next((verdict for verdict in verdicts(content) if verdict.arm == own.name), None),
            "own": own.name,
            "others": [arm.name for arm in results.arms if arm is not own],
            "rows": rows,
            "has_excess": any(not math.isnan(excess) for excess in excesses),
            "parts": [row for row in content.parts if any(row.cells.values())],
            "warnings": results.warnings,
            "conditions": _conditions(own),
            "command": Markup(visible(command)),
            # Longer than any in the system prompt.
            "fence": Markup("`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))),
            "is_subset": any(run.is_subset for run in own.runs.values()),
            "settings": _settings(record, options),
            "record_name": record_name,
            "chat": chat,
            "is_adapter": first_card.is_adapter(checkpoint),
            "is_npo": options.get("method") == "npo",
        },
    )


def _settings(record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """How the checkpoint was trained, by name for readers."""
    shown = dict(options)
    shown["retain_rows"] = _as_ranges(options.get("retain_rows"))
    if Path(str(options.get("model", ""))).is_absolute():  # no folders of this machine on the hub
        shown["model"] = Path(options["model"]).name
    found = {key: shown.get(key) for key in _OPTIONS} | {key: record.get(key) for key in _OF_THE_RUN}
    settings = {_NAMES.get(key, key.replace("_", " ")): value for key, value in found.items() if value is not None}
    merge = record.get("merge")
    if isinstance(merge, dict) and isinstance(merge.get("update_error"), int | float):
        # What rounding the merged weights took away of the LoRA update.
        settings["relative error of the merged update"] = f"{merge['update_error']:.2g}"
    return settings


def _has_chat_template(checkpoint: Path) -> bool:
    if (checkpoint / "chat_template.jinja").is_file():
        return True
    path = checkpoint / "tokenizer_config.json"
    return path.is_file() and bool(files.read_json(path).get("chat_template"))


def _summary(record: Mapping[str, Any], options: Mapping[str, Any], data: first_card.Dataset) -> str:
    start = Path(str(options.get("model") or "a model")).name
    if record.get("method", FINETUNE) != FINETUNE:
        return (
            f"{start}, made to forget {data.part(options.get('forget_split', 'forget split'))} by {record['method']}."
        )
    if record:
        return f"{start}, fine-tuned on {data.part(options.get('split', 'rows'))}."
    return "A model that was audited for what it knows of TOFU."


def _as_ranges(rows: Any) -> Any:
    """Row numbers as the option takes them: `0-19,40`."""
    if not isinstance(rows, list) or not all(isinstance(row, int) for row in rows):
        return rows
    # In a stretch of consecutive numbers, number and place differ by the same.
    stretches = itertools.groupby(enumerate(sorted(rows)), key=lambda pair: pair[1] - pair[0])
    ranges = [[row for _, row in stretch] for _, stretch in stretches]
    return ",".join(str(each[0]) if len(each) == 1 else f"{each[0]}-{each[-1]}" for each in ranges)


def _conditions(own: Arm) -> str:
    """Backend and versions; where tasks were run in different ways, each way with its tasks."""
    by_way: dict[str, list[str]] = {}
    runs = {task: run.settings for task, run in own.runs.items()}
    differing = [
        (name, words)
        for name, words in (("chat_template", "chat template"), ("system_prompt", "system prompt"))
        if len({getattr(run, name) for run in runs.values()}) > 1
    ]
    for task, run in runs.items():
        parts = [run.backend, run.weights_dtype or "an unknown dtype", f"batch size {run.batch_size}"]
        parts += [f"{words} {getattr(run, name) or 'none'}" for name, words in differing]
        parts += [f"{name} {version}" for name, version in run.versions.items()]
        by_way.setdefault(", ".join(parts), []).append(task)
    if len(by_way) < 2:
        return next(iter(by_way), "an unknown backend")
    return "; ".join(f"{way} ({', '.join(tasks)})" for way, tasks in by_way.items())


_PLACEHOLDERS = {
    "retain_reference": "RESULTS_OF_THE_RETAIN_ARM",
    "full_reference": "RESULTS_OF_THE_FULL_ARM",
}


def _command(own: Arm, split: str, chat: bool) -> str:
    """How to audit the model again in the same way; references and directories are placeholders."""
    options: dict[str, Any] = {"forget_split": split}
    for task, run in own.runs.items():
        options |= {key: value for key, value in run.options.items() if key not in options or is_followed(key, task)}
    options |= {name: text for name, text in _PLACEHOLDERS.items() if name in options or name == "retain_reference"}
    if "tofu" in options and options["tofu"] != MINI and not _is_hub_id(str(options["tofu"])):
        options["tofu"] = "DIRECTORY_OF_THE_DATA"
    unknown = ArmSettings(model="", backend="hf", task="", chat_template="" if chat else None)
    settings = next((run.settings for run in own.runs.values()), unknown)
    model_args = "pretrained=PATH_OR_HUB_ID"
    if settings.adapter:
        model_args = f"pretrained=BASE_MODEL,{settings.adapter.partition('=')[0]}=PATH_OR_HUB_ID"
    if settings.weights_dtype in ("float32", "bfloat16", "float16"):
        model_args += f",dtype={settings.weights_dtype}"
    if settings.backend == "hf" and settings.softmax_dtype not in (None, settings.weights_dtype):
        model_args += f",softmax_dtype={settings.softmax_dtype}"
    tasks = "tofu_*" if len(own.runs) in (0, len(TASKS)) else ",".join(own.runs)
    # Whatever comes from a results file is quoted: others will paste the command into a shell.
    parts = ["lm_eval", "--model", settings.backend, "--model_args", model_args, "--tasks", tasks]
    parts += ["--apply_chat_template"] if settings.chat_template is not None else []
    parts += ["--system_instruction", settings.system_prompt] if settings.system_prompt else []
    rest = ["--log_samples", "--output_path", "results", "--metadata", json.dumps(options, ensure_ascii=False)]
    return f"{shlex.join([*parts, '--batch_size', 'auto'])} \\\n    {shlex.join(rest)}"
