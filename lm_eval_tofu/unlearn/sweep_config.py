"""Reads and checks the configuration of a sweep, and makes the options of each run."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_tofu import files, tofu
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.unlearn import options

if TYPE_CHECKING:
    from lm_eval_tofu.unlearn.unlearning import UnlearnConfig

PRESETS_DIR = Path(__file__).parent.parent / "presets" / "sweeps"
CONFIG_FILE = "sweep.json"
"""The resolved configuration, in the sweep's directory."""

_OF_THE_SWEEP = {
    "model": "give the sweep's model",
    "forget_split": "give the sweep's forget_split",
    "method": "give the sweep's method, or several in the grid",
    "tofu": "give the sweep's tofu",
    "revision": "give the sweep's tofu_revision",
    "output": "each run has a directory of its own",
    "overwrite": "a run that is not finished goes on",
    "config": "give the options themselves",
}
"""Options of `lm-eval-tofu unlearn` that a sweep gives its runs itself, and what to do instead."""

Point = dict[str, Any]
"""One value for each option of the grid."""


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How each checkpoint is evaluated: the arguments of `lm_eval_tofu.evaluation.evaluate` with these names."""

    backend: str = "hf"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | str | None = None
    device: str | None = None
    samples: Mapping[str, Sequence[int]] | None = None
    apply_chat_template: bool = True
    system_instruction: str | None = None


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """A sweep, as its YAML file and the command line describe it.

    Attributes:
        model: The checkpoint to unlearn from, the full arm.
        output: Directory of the sweep.
        grid: Values by option of `lm-eval-tofu unlearn`.
        retain_reference: Results of `tofu_forget_quality` on the retain arm.
        method: As that command's option.
        forget_split: As that command's option.
        tofu: Data source, as `lm_eval_tofu.tofu.resolve_source`.
        tofu_revision: The data's revision on the hub.
        training: Options of `lm-eval-tofu unlearn` that all runs share.
        evaluation: How each checkpoint is evaluated.
    """

    model: str
    output: str
    grid: Mapping[str, Sequence[Any]]
    retain_reference: str
    method: str = "npo"
    forget_split: str = "forget10"
    tofu: str | None = None
    tofu_revision: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def folder(self) -> Path:
        """The sweep's directory."""
        return Path(self.output)

    @property
    def points(self) -> list[Point]:
        """The grid's points, the last option changing fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    @property
    def metadata(self) -> dict[str, Any]:
        """The tasks' options."""
        names = ("tofu", "tofu_revision", "forget_split", "retain_reference")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def run_folder(self, point: Point) -> Path:
        """Directory of one run."""
        return self.folder / "runs" / name_of(point)


def name_of(point: Point) -> str:
    """A run's name: its options and values, `beta0.1-learning_rate5e-05`, in the grid's order."""
    return "-".join(f"{option}{value}" for option, value in point.items())


def read_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> SweepConfig:
    """Read a sweep's YAML file, a preset by its name, or an existing sweep by its directory.

    Args:
        path: A file, the name of a preset, or a directory.
        overrides: Values that replace the file's; None is passed over.
    """
    import yaml

    presets = {preset.stem: preset for preset in sorted(PRESETS_DIR.glob("*.yaml"))}
    file = presets.get(str(path), Path(path))
    if (file / CONFIG_FILE).is_file():
        content: Any = _recorded(file)
    elif file.is_file():
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise OptionError(f"{file} cannot be read ({' '.join(str(error).split())}): give a YAML file") from error
        if not isinstance(content, dict):
            raise OptionError(f"{file} is no mapping of options: see {presets['npo-54']}")
    else:
        raise OptionError(
            f"the sweep {str(path)!r} is no file, no sweep's directory and no preset ({', '.join(presets)}): name one"
        )
    return _checked({**content, **{k: v for k, v in (overrides or {}).items() if v is not None}}, str(file))


def load_config(folder: Path) -> SweepConfig:
    """Read the configuration that a sweep keeps in its directory."""
    return _checked(_recorded(folder), str(folder / CONFIG_FILE))


def _recorded(folder: Path) -> dict[str, Any]:
    content = files.read_json(folder / CONFIG_FILE, fix="name the directory of a sweep")
    return {**content, "output": str(folder)}  # it may have another name on another machine


def _checked(content: dict[str, Any], where: str) -> SweepConfig:
    content = _known(SweepConfig, content, where, "{!r}")
    for key in ("training", "evaluation"):
        if not isinstance(content.get(key, {}), dict):
            raise OptionError(f"{where}: {key}={content[key]!r} is no mapping of options to values: see preset npo-54")
    for key in ("model", "output", "retain_reference", "grid"):
        if not content.get(key):
            raise OptionError(f"{where}: {key} is missing: give it there or as --{key.replace('_', '-')}")
    _check_grid(content["grid"], content.get("training", {}), where)
    evaluation = EvaluationConfig(**_known(EvaluationConfig, content.get("evaluation", {}), where, "evaluation.{}"))
    if not isinstance(evaluation.model_args, dict):
        raise OptionError(f"{where}: evaluation.model_args={evaluation.model_args!r} is no mapping: see npo-54")
    if evaluation.backend not in ("hf", "vllm"):
        raise OptionError(f"{where}: evaluation.backend={evaluation.backend!r} is unknown: use hf or vllm")
    if evaluation.samples is not None and not _names_documents(evaluation.samples):
        raise OptionError(
            f"{where}: evaluation.samples={evaluation.samples!r} names no documents by task: write for example "
            "tofu_model_utility: [0, 1, 2]"
        )
    if content.get("forget_split", "forget10") not in tofu.FORGET_SPLITS:
        raise OptionError(
            f"{where}: forget_split={content['forget_split']!r} is unknown: use {', '.join(tofu.FORGET_SPLITS)}"
        )
    return SweepConfig(**{**content, "evaluation": evaluation})


def _known(config_class: type, content: Mapping[str, Any], where: str, form: str) -> dict[str, Any]:
    """The content without the keys that have no value; an unknown key is refused."""
    names = [each.name for each in fields(config_class)]
    for key in content:
        if key not in names:
            raise OptionError(f"{where}: {form.format(key)} is unknown: use {', '.join(names)}")
    return {key: value for key, value in content.items() if value is not None}


def _check_grid(grid: Any, training: Mapping[str, Any], where: str) -> None:
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise OptionError(f"{where}: grid={grid!r} is no mapping of options to lists of values: see the preset npo-54")
    for option, values in grid.items():
        if len({json.dumps(value) for value in values}) < len(values):
            raise OptionError(f"{where}: the grid's {option}={values} names a value twice: name each once")
        if option in training:
            raise OptionError(f"{where}: {option} is in grid and in training: leave it out of training")


def _names_documents(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(chosen, list) and chosen and all(type(number) is int and number >= 0 for number in chosen)
        for chosen in value.values()
    )


def check(config: SweepConfig) -> None:
    """Check options, model, data, reference and prompts before the first run, as every run would."""
    from lm_eval_tofu import evaluation
    from lm_eval_tofu.unlearn.models import check_model

    check_model(config.model)
    check_options(config)
    for point in config.points:
        evaluation.check_results_name("output", config.run_folder(point) / "model")
    settings = config.evaluation
    evaluation.check_machine(settings.backend, settings.model_args, settings.batch_size, settings.device, "evaluation.")
    try:
        evaluation.check_prompts(
            evaluation.BENCHMARK,
            {"pretrained": config.model, **settings.model_args, **config.metadata},
            apply_chat_template=settings.apply_chat_template,
            system_instruction=settings.system_instruction,
            samples=settings.samples,
        )
    except ReferenceRunError as error:
        # The user can change the prompts in the sweep's file.
        variables = settings.model_args.get("chat_template_args")
        raise ReferenceRunError(
            f"{error} (this sweep asks with evaluation.system_instruction={settings.system_instruction!r} and "
            f"chat_template_args={variables!r}: change both in a copy of its file)"
        ) from error


def check_options(config: SweepConfig) -> None:
    """Check the options of every run, and that each is asked as it was trained.

    Raises:
        OptionError: The grid or `training` hold an unknown option, a value that cannot be used, or one that the sweep
            has a field for; or prompts differ between training and evaluation.
    """
    from transformers import TrainingArguments

    from lm_eval_tofu.unlearn import unlearning

    known = {**options.spellings(TrainingArguments), **options.spellings(unlearning.UnlearnConfig)}
    seen: dict[str, str] = {}
    for where, names in (("grid", config.grid), ("training", config.training)):
        options.check_known(names, [*known, "config"], where)
        for name in names:
            kind = known.get(name, name)
            if kind in _OF_THE_SWEEP and not (kind == "method" and where == "grid"):
                raise OptionError(f"{where}: {name} is no option of the runs: {_OF_THE_SWEEP[kind]}")
            if kind in seen:
                raise OptionError(f"{where}: {name} is the same option as {seen[kind]}: leave one of them out")
            seen[kind] = f"{name} in {where}"
    for point in config.points:
        run = run_config(config, point, config.run_folder(point))
        run.check()
        if not run.lora_merge:
            raise OptionError(
                "training: no-lora-merge writes adapters alone, and a sweep evaluates whole models: leave it out"
            )
        _check_prompting(config, run)
    # transformers' own checks, which do not depend on the point.
    unlearning.trainer_arguments(run, examples=1)


def _check_prompting(config: SweepConfig, run: "UnlearnConfig") -> None:
    evaluated = config.evaluation
    theirs = {
        "apply_chat_template": evaluated.apply_chat_template,
        "system_instruction": evaluated.system_instruction or None,
        "model_args.chat_template_args": dict(evaluated.model_args.get("chat_template_args") or {}),
    }
    ours = (run.apply_chat_template, run.system_prompt or None, dict(run.template_args))
    names = ("no-chat-template", "system-prompt", "template-args")
    for (name, value), option, trained in zip(theirs.items(), names, ours, strict=True):
        if value != trained:
            raise OptionError(
                f"evaluation.{name} is {value!r}, but the runs are trained with {trained!r} (training: {option}): give "
                "both the same, or the models are asked otherwise than they learned"
            )


def run_config(config: SweepConfig, point: Point, output: Path) -> "UnlearnConfig":
    """The options of `lm-eval-tofu unlearn` for one point."""
    from lm_eval_tofu.unlearn.unlearning import UnlearnConfig

    given = {
        "model": config.model,
        "output": output,
        "method": config.method,
        "forget-split": config.forget_split,
        "tofu": config.tofu,
        "revision": config.tofu_revision,
        **config.training,
        **point,
    }
    return options.from_mapping(UnlearnConfig, given, "a run of the sweep")
