"""The model card of an audited checkpoint: its results where the hub reads them, and beside them how to read them.

Training wrote a first card (`lm_eval_tofu.unlearn.card`). This one keeps its metadata, and whatever else stands outside
our part of the text.
"""

import argparse
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_tofu import __version__, tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.report import load, render, tables
from lm_eval_tofu.report.verdicts import verdicts
from lm_eval_tofu.unlearn import card as first_card

log = logging.getLogger(__name__)

BEGIN, END = "<!-- lm-eval-tofu: results -->", "<!-- lm-eval-tofu: end of results -->"
"""Around our part of a card; what stands outside is the user's."""
RECORDS = ("unlearning.json", "training.json")
MINI = "mini"

_SETTINGS = {
    "method": "method",
    "model": "started from",
    "forget_split": "forget split",
    "split": "trained on",
    "epochs": "epochs",
    "learning_rate": "learning rate",
    "alpha": "alpha",
    "beta": "beta",
    "gamma": "gamma",
    "margin": "margin",
    "retain_loss": "retain loss",
    "weight_decay": "weight decay",
    "warmup": "warm-up, epochs",
    "lora_r": "LoRA rank",
    "seed": "seed",
}
_OF_THE_RUN = {
    "effective_batch": "effective batch",
    "steps": "steps",
    "trainable_parameters": "trainable parameters",
    "weight_dtype": "dtype of the weights",
    "weights": "fingerprint of the weights",
}


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
    """Write a checkpoint's `README.md`: metadata with the results, and a text that says how to read them.

    Args:
        checkpoint: Directory of the model.
        results: As `lm_eval_tofu.report.load.parse_arms` takes them: the checkpoint's own, and other arms.

    Returns:
        The card.

    Raises:
        OptionError: There is no checkpoint, its card or record cannot be read, or the results cannot.
    """
    if not (checkpoint / "config.json").is_file():
        raise OptionError(f"CHECKPOINT {checkpoint} holds no model (config.json): name a checkpoint's directory")
    record_name, record = _record(checkpoint)
    loaded = load.load(load.parse_arms(results, "--results"), "--results")
    own = _own_arm(loaded, checkpoint)
    content = tables.build(loaded)
    text = _text(checkpoint, record_name, record, content, own)
    metadata, body = _first_card(checkpoint, record)
    if BEGIN in body and END in body:
        before, _, rest = body.partition(BEGIN)
        body = before + text.strip() + rest.partition(END)[2]
    elif not body.strip() or first_card.CLOSING in body:
        body = f"# {checkpoint.resolve().name}\n\n{text}"
    else:
        body = f"{body.rstrip()}\n\n{text}"
    path = checkpoint / "README.md"
    whole = f"---\n{_with_results(metadata, checkpoint, record, content, own)}\n---\n\n{body.strip()}\n"
    render.write_aside(path, whole.encode("utf-8", "replace"), option="CHECKPOINT")
    return path


def _record(checkpoint: Path) -> tuple[str, Mapping[str, Any]]:
    for name in RECORDS:
        path = checkpoint / name
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise OptionError(f"{path} cannot be read ({error}): put the record of the training back") from error
            return name, record if isinstance(record, dict) else {}
    return "", {}


def _own_arm(results: load.Results, checkpoint: Path) -> load.Arm:
    """The arm that is the checkpoint: the only one, else the one evaluated at its path, named so, or without a role."""
    arms = results.arms
    same = [arm for arm in arms if any(_is_model(run, checkpoint) for run in arm.runs.values())]
    free = [arm for arm in arms if arm.name not in ("base", "full", "retain")]
    for chosen in (arms, same, [arm for arm in arms if arm.name == "unlearned"], free):
        if len(chosen) == 1:
            arm = chosen[0]
            if arm not in same:
                models = ", ".join(sorted({run.model for run in arm.runs.values()})) or "no model"
                log.warning("%s: the results are of %s; make sure that this is the same model", checkpoint, models)
            return arm
    raise OptionError(
        f"--results names {len(arms)} arms and none of them is plainly {checkpoint}: give its own results as "
        "unlearned=path"
    )


def _is_model(run: load.TaskRun, checkpoint: Path) -> bool:
    try:
        return Path(run.model).resolve() == checkpoint.resolve()
    except (OSError, ValueError):
        return False


def _first_card(checkpoint: Path, record: Mapping[str, Any]) -> tuple[Any, str]:
    """The metadata and the text of the card that is there; where there is none, what training would have written."""
    import yaml
    from huggingface_hub import ModelCard

    path = checkpoint / "README.md"
    if not path.is_file():
        options = record.get("options") or {}
        tags = ["unlearning", str(record["method"])] if "method" in record else []
        return first_card.metadata(options.get("model"), tags), ""
    try:
        card = ModelCard.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise OptionError(f"{path} cannot be read ({what}): mend its metadata, or delete it") from error
    return card.data, card.text


def _with_results(
    metadata: Any, checkpoint: Path, record: Mapping[str, Any], content: tables.Tables, own: load.Arm
) -> str:
    """The metadata as YAML, our results in place of older ones of ours; read back, so that the hub can too."""
    from huggingface_hub import EvalResult, ModelCard

    kept = [each for each in metadata.eval_results or [] if each.source_name != "lm-eval-tofu"]
    mini = _is_mini(record, own)
    split = content.results.split
    ours = [
        EvalResult(
            task_type="text-generation",
            dataset_type="lm-eval-tofu-mini" if mini else tofu.HUB_ID,
            dataset_name=f"{'TOFU miniature' if mini else 'TOFU'} ({split})",
            dataset_config=f"{split}_perturbed",
            dataset_split="train",
            metric_type=row.key,
            metric_name=row.label,
            metric_value=cell.value,
            source_name="lm-eval-tofu",
            # The hub shows no source without an address.
            source_url=f"https://huggingface.co/datasets/{tofu.HUB_ID}",
        )
        for row in content.main
        if (cell := row.cells[own.name]) is not None and math.isfinite(cell.value)
    ]
    metadata.eval_results = [*kept, *ours]
    metadata.model_name = metadata.model_name or checkpoint.resolve().name
    metadata.tags = list(dict.fromkeys([*(metadata.tags or []), "lm-eval-tofu", "tofu"]))
    metadata.datasets = list(dict.fromkeys([*_as_list(metadata.datasets), tofu.HUB_ID]))
    text = str(metadata.to_yaml())
    back: Any = ModelCard(f"---\n{text}\n---\n").data
    if len(back.eval_results or []) != len(metadata.eval_results):
        raise OptionError(f"{checkpoint / 'README.md'}: its metadata do not hold the results: mend or delete it")
    return text.strip()


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _is_mini(record: Mapping[str, Any], own: load.Arm) -> bool:
    sources = {run.source for run in own.runs.values()}
    return MINI in sources or (not sources and (record.get("data") or {}).get("source") == MINI)


def _text(checkpoint: Path, record_name: str, record: Mapping[str, Any], content: tables.Tables, own: load.Arm) -> str:
    from markupsafe import Markup

    results = content.results
    options = {**(record.get("options") or {}), **{key: record[key] for key in ("method",) if key in record}}
    settings = {label: options[key] for key, label in _SETTINGS.items() if options.get(key) is not None}
    if Path(str(settings.get(_SETTINGS["model"], ""))).is_absolute():  # no folders of this machine on the hub
        settings[_SETTINGS["model"]] = Path(settings[_SETTINGS["model"]]).name
    settings |= {label: record[key] for key, label in _OF_THE_RUN.items() if record.get(key) is not None}
    others = [arm.name for arm in results.arms if arm is not own]
    rows = [row for row in content.main if any(row.cells.values())]
    audited = next((verdict for verdict in verdicts(content) if verdict.arm == own.name), None)
    excesses = [cell.excess for row in rows if (cell := row.cells[own.name]) is not None]
    first = next(iter(own.runs.values()), None)
    conditions = "an unknown backend"
    if first:
        chosen = first.settings
        conditions = (
            f"{chosen.backend}, {chosen.dtype}, batch size {chosen.batch_size}, lm-eval {chosen.lm_eval}, "
            f"transformers {chosen.transformers}"
        )
    chat = bool(record.get("apply_chat_template", (checkpoint / "chat_template.jinja").is_file()))
    return render.render(
        "card.md.j2",
        {
            "begin": Markup(BEGIN),
            "end": Markup(END),
            "summary": _summary(record, options),
            "split": results.split,
            "is_mini": _is_mini(record, own),
            "version": __version__,
            "audited": audited is not None,
            "verdict": audited,
            "words": render.WORDS,
            "own": own.name,
            "others": others,
            "rows": rows,
            "has_excess": any(not math.isnan(excess) for excess in excesses),
            "parts": [row for row in content.parts if any(row.cells.values())],
            "warnings": results.warnings,
            "conditions": conditions,
            "settings": settings,
            "record_name": record_name,
            "chat": chat,
            "is_npo": options.get("method") == "npo",
        },
    )


def _summary(record: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    start = Path(str(options.get("model") or "a model")).name
    if "method" in record:
        return f"{start}, made to forget TOFU's {options.get('forget_split', 'forget split')} by {record['method']}."
    if record:
        return f"{start}, fine-tuned on TOFU's {options.get('split', 'rows')}."
    return "A model that was audited for what it knows of TOFU."
