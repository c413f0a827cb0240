"""Sweeps: one training and one evaluation for every point of a grid, by any number of workers.

The queue is an Optuna study: each point is queued once, a worker takes one by an atomic change of its state, and a
heartbeat tells which of them died. What a run was told, its checkpoint and its results lie in a directory of its own.
"""

import hashlib
import itertools
import json
import logging
import math
import platform
import re
import shlex
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_tofu import files, tofu
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.unlearn import child, options

if TYPE_CHECKING:
    from lm_eval_tofu.unlearn.unlearning import UnlearnConfig

log = logging.getLogger(__name__)

PRESETS_DIR = Path(__file__).parent.parent / "presets" / "sweeps"
CONFIG_FILE, RUN_FILE, LOG_FILE = "sweep.json", "run.json", "log.txt"
KEEP = ("all", "best", "none")

_HEARTBEAT, _GRACE = 10, 60
"""Seconds between two signs of life of a worker, and without one until its run is taken up by another."""
_PATIENCE = 60
"""Seconds that a worker waits for another one to queue the next run."""
_ATTEMPTS = 5
"""How often a storage is opened before it counts as out of reach."""
_TRIAL = ("-m", "lm_eval_tofu.unlearn.trial")
_POINT = "point"
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
    """How each checkpoint is evaluated; see `lm_eval_tofu.evaluation.evaluate`.

    Attributes:
        backend: `hf` or `vllm`.
        model_args: Further model arguments of that backend.
        batch_size: As lm_eval's option.
        device: As lm_eval's option; None, with hf: an accelerator where there is one, else the CPU.
        samples: As lm_eval's option: documents by task; tasks that it does not name are asked whole.
        apply_chat_template: As lm_eval's flag.
        system_instruction: As lm_eval's option.
    """

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
        tofu: Data source, as `lm_eval_tofu.tofu.resolve_source`; resolved.
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

    def run_folder(self, point: Point) -> Path:
        """Directory of one run."""
        return self.folder / "runs" / name_of(point)

    @property
    def study(self) -> str:
        """Name of the Optuna study: sweeps that differ in anything but their place have different ones."""
        content = {key: value for key, value in asdict(self).items() if key != "output"}
        return f"lm-eval-tofu-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"


class RunState(NamedTuple):
    """Where one run of a sweep stands.

    Attributes:
        point: Its point of the grid.
        state: waiting, running, complete or failed.
        metrics: `forget_quality`, `ks_statistic` and `model_utility`, once complete.
        seconds: How long it took, or has taken so far.
        error: Why it failed.
    """

    point: Point
    state: str
    metrics: Mapping[str, float]
    seconds: float | None
    error: str | None = None


def name_of(point: Point) -> str:
    """A run's name: its options and values, `beta0.1-learning_rate5e-05`, in the grid's order."""
    return "-".join(f"{option}{value}" for option, value in point.items())


def read_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> SweepConfig:
    """Read a sweep's YAML file, a preset by its name, or a sweep that was begun by its directory.

    Args:
        path: A file, the name of a preset, or a directory.
        overrides: Values that replace the file's; None is passed over.

    Raises:
        OptionError: The file cannot be read, or a value in it cannot be used.
    """
    import yaml

    presets = {preset.stem: preset for preset in sorted(PRESETS_DIR.glob("*.yaml"))}
    file = presets.get(str(path), Path(path))
    if (file / CONFIG_FILE).is_file():
        # The directory may have been moved since.
        content = {**_read_json(file / CONFIG_FILE), "output": str(path)}
        return _checked(content | {k: v for k, v in (overrides or {}).items() if v is not None}, str(file))
    if not file.is_file():
        raise OptionError(
            f"the sweep {str(path)!r} is no file, no sweep's directory and no preset ({', '.join(presets)}): name one"
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OptionError(f"{file} cannot be read ({' '.join(str(error).split())}): give a YAML file") from error
    if not isinstance(content, dict):
        raise OptionError(f"{file} is no mapping of options: see {presets['npo-54']}")
    content |= {key: value for key, value in (overrides or {}).items() if value is not None}
    return _checked(content, str(file))


def _checked(content: dict[str, Any], where: str) -> SweepConfig:
    known = [item.name for item in fields(SweepConfig)]
    for key in content:
        if key not in known:
            raise OptionError(f"{where}: {key!r} is unknown: use {', '.join(known)}")
    # A key of YAML without a value is None.
    content = {key: value for key, value in content.items() if value is not None}
    for key in ("training", "evaluation"):
        if not isinstance(content.get(key, {}), dict | EvaluationConfig):
            raise OptionError(f"{where}: {key}={content[key]!r} is no mapping of options to values: see preset npo-54")
    for key in ("model", "output", "retain_reference", "grid"):
        if not content.get(key):
            raise OptionError(f"{where}: {key} is missing: give it there or as --{key.replace('_', '-')}")
    grid = content["grid"]
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise OptionError(f"{where}: grid={grid!r} is no mapping of options to lists of values: see the preset npo-54")
    for option, values in grid.items():
        if len({json.dumps(value) for value in values}) < len(values):
            raise OptionError(f"{where}: the grid's {option}={values} names a value twice: name each once")
        if option in content.get("training", {}):
            raise OptionError(f"{where}: {option} stands in grid and in training: leave it out of training")
    evaluation = content.get("evaluation", {})
    if not isinstance(evaluation, EvaluationConfig):
        names = [item.name for item in fields(EvaluationConfig)]
        for key in evaluation:
            if key not in names:
                raise OptionError(f"{where}: evaluation.{key} is unknown: use {', '.join(names)}")
        evaluation = EvaluationConfig(**{key: value for key, value in evaluation.items() if value is not None})
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


def _names_documents(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(chosen, list) and chosen and all(type(number) is int and number >= 0 for number in chosen)
        for chosen in value.values()
    )


def load_config(path: Path) -> SweepConfig:
    """Read the resolved configuration that a sweep keeps in its directory.

    Raises:
        OptionError: There is none, or it cannot be read.
    """
    return _checked(_read_json(path), str(path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(f"{path} cannot be read ({error}): name the directory of a sweep") from error


def check(config: SweepConfig) -> None:
    """Check options, model, data, reference and prompts before the first run, as every run would.

    Raises:
        TofuError: One of them cannot be used.
    """
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
            {"pretrained": config.model, **settings.model_args, **metadata_of(config)},
            apply_chat_template=settings.apply_chat_template,
            system_instruction=settings.system_instruction,
            samples=settings.samples,
        )
    except ReferenceRunError as error:
        # What the user can change of the prompts stands in the sweep's file.
        variables = settings.model_args.get("chat_template_args")
        raise ReferenceRunError(
            f"{error} (this sweep asks with evaluation.system_instruction={settings.system_instruction!r} and "
            f"chat_template_args={variables!r}: a copy of its file can say otherwise)"
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
                raise OptionError(f"{where}: {name} says the same as {seen[kind]}: leave one of them out")
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


def metadata_of(config: SweepConfig) -> dict[str, Any]:
    """The tasks' options."""
    values = {
        "tofu": config.tofu,
        "tofu_revision": config.tofu_revision,
        "forget_split": config.forget_split,
        "retain_reference": config.retain_reference,
    }
    return {key: value for key, value in values.items() if value is not None}


# The queue.


def default_storage(config: SweepConfig) -> str:
    """A SQLite file in the sweep's directory, as a URL."""
    return f"sqlite:///{config.folder.absolute() / 'sweep.db'}"


def open_queue(config: SweepConfig, storage: str | None = None) -> Any:
    """The sweep's Optuna study, with every point queued once.

    Whoever creates the study queues the points; others wait for it. A study whose creator died before it was done holds
    no run that has begun, so it is made anew.

    Raises:
        OptionError: The storage cannot be reached.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage or default_storage(config)
    if storage is None:
        config.folder.mkdir(parents=True, exist_ok=True)
    backend = _storage(url)
    for _ in range(3):
        try:
            study = optuna.create_study(storage=backend, study_name=config.study, sampler=_sampler())
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=backend, study_name=config.study, sampler=_sampler())
            if _wait_until_queued(study):
                return study
            optuna.delete_study(storage=backend, study_name=config.study)
            continue
        for number, point in enumerate(config.points):
            study.enqueue_trial(point, user_attrs={_POINT: number})
        study.set_user_attr("queued", len(config.points))
        return study
    raise OptionError(f"--storage {masked(url)}: the sweep's runs cannot be queued: give another storage")


def _storage(url: str) -> Any:
    import optuna
    import sqlalchemy

    error: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                opened = optuna.storages.RDBStorage(
                    url,
                    # SQLite locks the whole file: a worker waits for its turn rather than fail.
                    engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                    heartbeat_interval=_HEARTBEAT,
                    grace_period=_GRACE,
                    heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
                )
            if url.startswith("sqlite"):
                _lock_before_reading(opened.engine)
            return opened
        except sqlalchemy.exc.DatabaseError as caught:
            # Workers that start together all create the tables, and all but one find them in their way.
            error = caught
            time.sleep(0.5)
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as caught:
            error = caught
            break
        except RuntimeError as caught:
            # Optuna says so of tables that another release has made.
            raise OptionError(
                f"--storage {masked(url)} is of another release of Optuna ({optuna.__version__} is installed): run "
                f"optuna storage upgrade --storage {shlex.quote(masked(url))}, or give another storage"
            ) from caught
    raise OptionError(
        f"--storage {masked(url)} cannot be opened ({masked(str(error).splitlines()[0])}): give for example "
        "sqlite:///sweep.db"
    ) from error


def masked(text: str) -> str:
    """A storage URL, or a message with one in it, without its password."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd|token)=)[^&\s'\")]*", r"\1***", text, flags=re.IGNORECASE)


@contextmanager
def _storage_errors(config: SweepConfig, storage: str | None) -> Iterator[None]:
    """Turn what the storage raises in the middle of a sweep into an error that says how to go on.

    Raises:
        OptionError: The storage failed.
    """
    import optuna
    import sqlalchemy

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        url = masked(storage or default_storage(config))
        raise OptionError(
            f"--storage {url} failed ({masked(str(error).splitlines()[0])}): run the same command again, which goes "
            "on; on a network file system, where SQLite's locks do not work, give the URL of a database server"
        ) from error


def _lock_before_reading(engine: Any) -> None:
    """Let SQLite's transactions begin before their first read.

    Python's driver begins one at the first write. Of two workers that look at a waiting run, both would then see it
    wait, and both take it. (SQLAlchemy's documentation of its pysqlite dialect, on serializable isolation.)
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()


def _sampler() -> Any:
    """A sampler that is never asked: every run's values are queued."""
    import optuna

    return optuna.samplers.RandomSampler(seed=0)


def _wait_until_queued(study: Any) -> bool:
    """Whether the study's creator has queued all points, or does so while it shows signs of life."""
    seen, changed = -1, time.monotonic()
    while "queued" not in study.user_attrs:
        count = len(study.get_trials(deepcopy=False))
        if count != seen:
            seen, changed = count, time.monotonic()
        if time.monotonic() - changed > _PATIENCE:
            return False
        time.sleep(0.2)
    return True


def runs(config: SweepConfig, study: Any) -> list[RunState]:
    """Where each point of the grid stands, in the grid's order."""
    from optuna.trial import TrialState

    # The best that is known of a point: complete before running before waiting before failed.
    order = {TrialState.COMPLETE: 3, TrialState.RUNNING: 2, TrialState.WAITING: 1, TrialState.FAIL: 0}
    names = {TrialState.COMPLETE: "complete", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}
    best: dict[int, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        number = trial.user_attrs.get(_POINT)
        if number is None or trial.state not in order:
            continue
        # The later of equals: a run that failed twice failed for the second reason.
        if number not in best or order[trial.state] >= order[best[number].state]:
            best[number] = trial
    found = []
    for number, point in enumerate(config.points):
        trial = best.get(number)
        if trial is None:
            found.append(RunState(point, "failed", {}, None, "it is not in the queue"))
            continue
        begun, ended = trial.datetime_start, trial.datetime_complete or datetime.now()
        found.append(
            RunState(
                point,
                names.get(trial.state, "failed"),
                trial.user_attrs.get("metrics", {}),
                (ended - begun).total_seconds() if begun else None,
                trial.user_attrs.get("error"),
            )
        )
    return found


# Workers.


def sweep(config: SweepConfig, storage: str | None = None, keep: str = "all") -> list[RunState]:
    """Work on the sweep until nothing is left to take; several processes may do so at the same time.

    Args:
        config: The sweep.
        storage: An Optuna storage URL; None: SQLite in the sweep's directory.
        keep: Which checkpoints stay: `all`, `best` (by the rule of `select`, of those finished so far) or `none`.

    Returns:
        Where every run stands; those that failed say why.

    Raises:
        OptionError: An option cannot be used, or finished runs in the directory were made with another.
        TofuError: Model, data or reference cannot be used.
    """
    if keep not in KEEP:
        raise OptionError(f"--keep {keep!r} is unknown: use {', '.join(KEEP)}")
    _check_same(config)
    check(config)
    with _storage_errors(config, storage):
        return _work(config, storage, keep)


def _work(config: SweepConfig, storage: str | None, keep: str) -> list[RunState]:
    from tqdm import tqdm

    study = open_queue(config, storage)
    files.write_json(config.folder / CONFIG_FILE, asdict(config))
    _queue_lost(config, study)
    with tqdm(total=len(config.points), unit="run", desc="sweep") as bar:
        while True:
            states = runs(config, study)
            bar.n = sum(state.state in ("complete", "failed") for state in states)
            bar.refresh()
            if not any(state.state in ("waiting", "running") for state in states):
                return states
            if any(state.state == "waiting" for state in states):
                _take_one(config, study, keep)
            else:
                # Another worker's; should it die, its run comes back to the queue.
                _return_stale(study)
                time.sleep(2)


def _check_same(config: SweepConfig) -> None:
    """Make sure that finished runs in the directory are runs of this sweep; the grid alone may have grown.

    Raises:
        OptionError: They were made otherwise.
    """
    file = config.folder / CONFIG_FILE
    records = (_read_json(path) for path in config.folder.glob(f"runs/*/{RUN_FILE}"))
    if not file.is_file() or not any("metrics" in record for record in records):
        return
    before, now = _read_json(file), json.loads(json.dumps(asdict(config)))
    for name, value in now.items():
        if name not in ("output", "grid") and before.get(name) != value:
            raise OptionError(
                f"{name} is {value!r}, but was {before.get(name)!r} for the finished runs in {config.folder}: go on "
                "with the same, or name another --output"
            )


def _queue_lost(config: SweepConfig, study: Any) -> None:
    """Queue again what failed in an earlier call: the reason may be gone."""
    for number, state in enumerate(runs(config, study)):
        if state.state == "failed":
            log.info("%s is taken up again; it failed: %s", name_of(state.point), state.error or "no reason recorded")
            study.enqueue_trial(state.point, user_attrs={_POINT: number})


def _return_stale(study: Any) -> None:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _take_one(config: SweepConfig, study: Any, keep: str) -> None:
    import optuna

    def objective(trial: Any) -> float:
        number = trial.user_attrs.get(_POINT)
        if number is None:
            # The queue ran dry between our look and our turn, so Optuna made a trial of its own.
            raise optuna.TrialPruned
        point = config.points[number]
        # Of the queued values; Optuna wants to know what else there was.
        for option, values in config.grid.items():
            trial.suggest_categorical(option, list(values))
        try:
            metrics = run_one(config, point)
        except RunTakenError as error:
            raise optuna.TrialPruned from error
        except OptionError as error:
            trial.set_user_attr("error", str(error))
            log.error("%s failed: %s", name_of(point), error)
            raise
        trial.set_user_attr("metrics", metrics)
        trial.set_user_attr("error", None)
        quality = metrics["forget_quality"]
        # Optuna takes no NaN for a value.
        return quality if quality == quality else -1.0

    study.optimize(objective, n_trials=1, catch=(OptionError,))
    if keep != "all":
        _drop_checkpoints(config, runs(config, study), keep)


class RunTakenError(Exception):
    """Another worker is at this run."""


def run_one(config: SweepConfig, point: Point) -> dict[str, float]:
    """Train and evaluate one point in a process of its own; what stands already is not made again.

    Raises:
        RunTakenError: Another worker on this machine, or on this file system, is at it.
        OptionError: It failed; the message holds the last line of its log.
    """
    import filelock

    folder = config.run_folder(point)
    folder.mkdir(parents=True, exist_ok=True)
    # The system frees the lock of a process that dies, however it dies.
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            return _run_locked(config, point, folder)
    except filelock.Timeout as error:
        raise RunTakenError(folder.name) from error


def _run_locked(config: SweepConfig, point: Point, folder: Path) -> dict[str, float]:
    record, results = folder / RUN_FILE, folder / "results"
    if results.is_dir() and record.is_file() and "metrics" in json.loads(record.read_text(encoding="utf-8")):
        return read_metrics(results)  # another queue made it, and its record says when and how long
    started = datetime.now(UTC)
    files.write_json(record, {"point": point, "started": started.isoformat(), "host": platform.node()})
    if not results.is_dir():
        command = [sys.executable, *_TRIAL, str(config.folder / CONFIG_FILE), str(folder)]
        child.run(command, folder / LOG_FILE, f"run {folder.name}")
    metrics = read_metrics(results)
    seconds = (datetime.now(UTC) - started).total_seconds()
    files.write_json(record, {**json.loads(record.read_text(encoding="utf-8")), "seconds": seconds, "metrics": metrics})
    return metrics


def read_metrics(results: Path) -> dict[str, float]:
    """Forget quality, D and utility of a finished run."""
    content = json.loads(files.newest_results(results).read_text(encoding="utf-8"))["results"]
    quality, utility = content["tofu_forget_quality"], content["tofu_model_utility"]
    return {
        "forget_quality": files.as_float(quality["forget_quality,none"]),
        "ks_statistic": files.as_float(quality["ks_statistic,none"]),
        "model_utility": files.as_float(utility["model_utility,none"]),
    }


def rank_key(metrics: Mapping[str, float]) -> tuple[float, float]:
    """What the selection sorts by, best first: forget quality, then utility; NaN comes last."""
    quality, utility = metrics["forget_quality"], metrics["model_utility"]
    return (math.inf if math.isnan(quality) else -quality, math.inf if math.isnan(utility) else -utility)


def _drop_checkpoints(config: SweepConfig, states: Sequence[RunState], keep: str) -> None:
    complete = sorted((s for s in states if s.state == "complete"), key=lambda state: rank_key(state.metrics))
    for state in complete[1 if keep == "best" else 0 :]:
        shutil.rmtree(config.run_folder(state.point) / "model", ignore_errors=True)


def table(states: Sequence[RunState]) -> Iterator[str]:
    """The lines of `sweep status`."""
    width = max(len(name_of(state.point)) for state in states)
    yield f"{'run':{width}}  {'state':8}  {'forget quality':>14}  {'D':>6}  {'utility':>7}  {'seconds':>7}"
    for state in states:
        metrics = [state.metrics.get(key) for key in ("forget_quality", "ks_statistic", "model_utility")]
        quality, distance, utility = ("-" if value is None else f"{value:.4g}" for value in metrics)
        seconds = "-" if state.seconds is None else f"{state.seconds:.0f}"
        name = f"{name_of(state.point):{width}}  {state.state:8}"
        line = f"{name}  {quality:>14}  {distance:>6}  {utility:>7}  {seconds:>7}"
        yield f"{line}  {state.error}" if state.error else line
    counts = Counter(state.state for state in states)
    yield ", ".join(f"{counts[name]} {name}" for name in ("complete", "running", "waiting", "failed"))
