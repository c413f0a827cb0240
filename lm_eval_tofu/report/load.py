"""Reads what lm-eval and the white-box audits wrote for any number of arms, and checks that they can be compared."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lm_eval_tofu import arm as arms_settings
from lm_eval_tofu import files, tofu
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.files import as_float
from lm_eval_tofu.report import comparability
from lm_eval_tofu.report.arms import ROLES, Arm, Key, Results, Sample, TaskRun, ToolRun
from lm_eval_tofu.report.audits import AUDITS, OTHERS, fields_of
from lm_eval_tofu.tasks import TASKS_DIR, samples
from lm_eval_tofu.tasks.options import Options
from lm_eval_tofu.tasks.reported import TASKS
from lm_eval_tofu.whitebox import VERSIONS

log = logging.getLogger(__name__)

_AGAIN = "evaluate that arm again"
_FIX_LINE = (
    f"the run was killed while it wrote, or the file is damaged; {_AGAIN}, or delete this run's files if another run "
    "of it is there"
)
_TOOLS = {audit.task for audit in (*AUDITS, *OTHERS)} & VERSIONS.keys()
_OPTIONS = (*(option.name for option in fields(Options) if option.name != "forget_rows"), "chat_template_args")
"""Of the recorded metadata, which holds the model's arguments too."""

# The arms that the user names.


def parse_arms(given: Sequence[str], option: str = "RESULTS") -> dict[str, Path]:
    """Names and paths of the arms.

    Args:
        given: `name=path`, a path (named after its last part), or a YAML file of `name: path`, whose paths are relative
            to the file.
        option: What the user calls it, for messages.

    Raises:
        OptionError: A path does not exist, a file is no such YAML, or a name or a path is given twice.
    """
    arms: dict[str, Path] = {}
    for name, path in (pair for text in given for pair in _named(text, option)):
        if not _exists(path):
            raise OptionError(
                f"{option} {name[:80]}={str(path)[:200]!r} does not exist: name a directory that lm_eval wrote"
            )
        if path.is_file() and path.name.startswith("samples_"):
            raise OptionError(
                f"{option} {name}={str(path)!r} is a samples file: name its directory, which holds the results too"
            )
        if name in arms:
            raise OptionError(f"{option} names the arm {name!r} twice ({arms[name]}, {path}): use name=path")
        same = next((other for other, before in arms.items() if before.resolve() == path.resolve()), None)
        if same is not None:
            raise OptionError(
                f"{option} gives {path} to both arms {same!r} and {name!r}: give each arm its own results"
            )
        arms[name] = path
    if not arms:
        raise OptionError(f"{option} names no arm: give directories that lm_eval wrote, as name=path")
    return arms


def _named(text: str, option: str) -> list[tuple[str, Path]]:
    name, equals, rest = text.partition("=")
    if equals and name and "/" not in name and not _exists(Path(text)):
        return [(name, _path(rest))]
    if Path(text).suffix in (".yaml", ".yml"):
        return _arms_of_file(Path(text), option)
    path = _path(text)
    if not _exists(path):
        return [(path.name, path)]
    place = path.resolve()
    return [(place.parent.name if path.is_file() else place.name, path)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, or one with a null character
        return False


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home directory of nobody
        return Path(text)


def _arms_of_file(path: Path, option: str) -> list[tuple[str, Path]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise OptionError(f"{option} {path} cannot be read ({what}): give a YAML file of name: path") from error
    if not isinstance(content, dict) or not all(isinstance(part, str) for pair in content.items() for part in pair):
        raise OptionError(f"{option} {path} is no list of arms: write one `name: path` a line")
    return [(name, path.parent / _path(value)) for name, value in content.items()]


# One results file.


@dataclass(frozen=True, slots=True)
class ResultsFile:
    """A results file, which may be damaged or another program's."""

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "ResultsFile":
        """Read a file."""
        return cls(path, files.read_json(path, "it is cut or damaged; delete it and evaluate that arm again"))

    def of_task(self, key: str, task: str) -> Mapping[str, Any]:
        """A task's entry below a key."""
        return mapping(mapping(self.content.get(key)).get(task))

    def metadata(self, task: str) -> Mapping[str, Any]:
        """The recorded metadata, with the tasks' options among them."""
        return mapping(self.of_task("configs", task).get("metadata"))

    def split(self, task: str) -> str | None:
        """The recorded forget split."""
        split = self.metadata(task).get("forget_split")
        return str(split) if split else None

    def is_of_chosen_rows(self, task: str) -> bool:
        """Whether a run was about chosen rows only, as the steps of relearning are."""
        return self.metadata(task).get("forget_rows") is not None

    def version(self, task: str) -> Any:
        """Version of the task; None where it is not stated."""
        return mapping(self.content.get("versions")).get(task, self.metadata(task).get("version"))

    def metrics(self, task: str) -> dict[str, float]:
        """Numbers by name, without lm-eval's filter and standard errors; NaN for a metric without a value (null)."""
        return {
            key.removesuffix(",none"): as_float(value)
            for key, value in self.of_task("results", task).items()
            if isinstance(value, int | float | None) and not isinstance(value, bool) and "_stderr," not in key
        }

    def documents(self, task: str) -> tuple[int | None, int | None]:
        """How many documents were asked, and of how many; None where it is not stated."""
        numbers = self.of_task("n-samples", task)
        asked, of = (
            number if isinstance(number := numbers.get(key), int) else None for key in ("effective", "original")
        )
        return asked, of


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is, and an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


class _AnyTag(yaml.SafeLoader):
    """Reads a task's YAML without importing what its tags name."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: None)


@functools.cache
def task_versions() -> dict[str, Any]:
    """The versions of the tasks in this package, from their YAML files."""
    shared, *leaves = (
        yaml.load((TASKS_DIR / name).read_text(encoding="utf-8"), _AnyTag)
        for name in ("_tofu_template", *(f"{task}.yaml" for task in TASKS))
    )
    return {leaf["task"]: {**shared, **leaf}["metadata"]["version"] for leaf in leaves}


def _check_version(arm: str, file: Path, task: str, version: Any) -> None:
    ours = {**VERSIONS, **task_versions()}[task]
    if version != ours:
        raise OptionError(
            f"arm {arm!r} ({file}) is of {task} version {version}, this is version {ours}: evaluate the arm again, or "
            "install the release that it was evaluated with"
        )


# The arms.


def load(arms: Mapping[str, Path], option: str = "RESULTS") -> Results:
    """Read every arm's newest run of every task and check that they can be compared.

    Args:
        arms: Directory, or one results file, by the arm's name.
        option: What the user calls it, for messages.

    Raises:
        OptionError: An arm has no results or damaged ones, or arms differ in split, task version or rows.
    """
    read = [_read_arm(name, path, option) for name, path in arms.items()]
    read.sort(key=lambda arm: ROLES.index(arm.name) if arm.name in ROLES else len(ROLES))
    split, warnings = comparability.check(read)
    for warning in warnings:
        log.warning("%s", warning)
    return Results(read, split, warnings)


def _read_arm(name: str, path: Path, option: str) -> Arm:
    where = f"{option} {name}={str(path)!r}"
    newest: dict[str, ResultsFile] = {}
    models: dict[str, list[tuple[str, ArmSettings]]] = {}
    tools: dict[str, ToolRun] = {}
    of_chosen_rows: set[str] = set()
    found = files.results_files(path) if path.is_dir() else [path]
    for file in map(ResultsFile.read, found):  # the newest last: it wins
        results = file.content.get("results")
        if not isinstance(results, dict):
            raise OptionError(f"{where}: {file.path} has no results: delete it, or name another directory")
        for task in results:
            if task in _TOOLS:
                _check_version(name, file.path, task, file.version(task))
                tools[task] = ToolRun(file.metrics(task), mapping(file.content.get(task)), file.split(task))
            elif task in TASKS and file.is_of_chosen_rows(task):
                of_chosen_rows.add(task)
            elif task in TASKS:
                newest[task] = file
                settings = arms_settings.settings_in(file.content, task)
                if settings is not None:
                    models.setdefault(task, []).append((_relative(file.path, path), settings))
    if not newest and not tools:
        raise OptionError(_why_empty(where, path, found, sorted(of_chosen_rows)))
    runs = {task: _read_run(name, task, newest[task]) for task in TASKS if task in newest}
    for each in models.values():
        arms_settings.refuse_unless_same_model(where, each, retrained=True)
    chosen = [(f"{_relative(run.path, path)}, {task}", run.settings) for task, run in runs.items()]
    arms_settings.refuse_unless_same_model(where, chosen)
    return Arm(name, path, runs, tools, [task for task in TASKS if task in of_chosen_rows])


def _why_empty(where: str, path: Path, found: Sequence[Path], of_chosen_rows: Sequence[str]) -> str:
    if not found:
        return (
            f"{where} holds no results (results_<time>.json): run lm_eval --tasks 'tofu_*' --log_samples --output_path "
            f"{path}, or name another directory"
        )
    if of_chosen_rows:
        return (
            f"{where} holds runs about some rows only ({', '.join(of_chosen_rows)} with the option forget_rows), which "
            "the report leaves out: evaluate that arm without forget_rows"
        )
    return f"{where} holds results of other tasks only: run lm_eval --tasks 'tofu_*' on that arm"


def _relative(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if folder.is_dir() else file.name


def _read_run(arm: str, task: str, file: ResultsFile) -> TaskRun:
    samples_file = files.samples_of_results(file.path, task)
    version = file.version(task)
    found: dict[Key, Sample] | None = None
    # Before anything else of it is read: another version's records may hold other things.
    if version is not None or not samples_file.is_file():
        _check_version(arm, file.path, task, version)
    if samples_file.is_file():
        # Those of several processes come in another order.
        found = dict(sorted(_samples(samples_file, arm, task), key=lambda pair: pair[0]))
    settings = arms_settings.settings_in(file.content, task)
    if settings is None:
        raise OptionError(
            f"arm {arm!r} ({file.path}) does not say how {task} was run, as results of another version of "
            "lm-eval-tofu: evaluate the arm again"
        )
    documents, of = file.documents(task)
    if found is not None and documents is not None and len(found) != documents:
        raise OptionError(
            f"{samples_file} has {len(found)} of {documents} documents: the run was killed while it wrote, or the file "
            f"was cut; {_AGAIN}"
        )
    split = file.split(task) or tofu.DEFAULT_FORGET_SPLIT
    if found:
        documents, split = len(found), next(iter(found.values())).record["split"]
    metadata = file.metadata(task)
    options = {name: metadata[name] for name in _OPTIONS if metadata.get(name) is not None}
    return TaskRun(task, split, file.path, options, documents, of, file.metrics(task), settings, found)


def _samples(file: Path, arm: str, task: str) -> Iterator[tuple[Key, Sample]]:
    is_empty = True
    lines = samples.read(file, task, task_versions()[task], needed=fields_of(task), fix=_FIX_LINE)
    for sample, record in lines:
        is_empty = False
        doc = mapping(sample.get("doc"))
        yield (
            (record["set"], record["index"], str(record.get("family", ""))),
            Sample(
                record,
                str(doc.get("question", "")),
                str(doc.get("answer", "")),
                doc.get("messages") or (),
                doc.get("opening") or "",
                sample.get("prompt_hash"),
            ),
        )
    if is_empty:
        raise OptionError(f"{file} is empty: the run was killed before it wrote; {_AGAIN}")
