"""The TOFU data set: its configurations, and where they come from.

TOFU (Maini et al. 2024, arXiv 2401.06121; `locuslab/TOFU`, MIT) asks 20 questions about each of 200 fictitious authors.
A source is the hub, a local directory in the hub's own layout (one `<configuration>.json` of JSON lines each), or
`mini`, the miniature that this package carries. A local source never touches the network.
"""

import copy
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lm_eval_tofu import files
from lm_eval_tofu.errors import DataError, OptionError

log = logging.getLogger(__name__)

HUB_ID = "locuslab/TOFU"
SOURCE_VARIABLE = "LM_EVAL_TOFU_DATA"
ROWS_PER_AUTHOR = 20
"""Rows of one author follow each other in `full`, and so in its parts."""
FORGET_SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
"""Each forget split and the retain split that is left of `full` without it."""
DEFAULT_FORGET_SPLIT = "forget10"
UTILITY_SETS = ("retain", "real_authors", "world_facts")
"""The three sets of rows that model utility is measured on, in the order of the tasks' documents."""

_QA = ("question", "answer")
_PERTURBED = (*_QA, "paraphrased_answer", "perturbed_answer", "paraphrased_question")
_FACT = (*_QA, "perturbed_answer")
_OPTIONS = (*_QA, "option1", "option2", "option3", "option4")


class Config(NamedTuple):
    """One configuration of the data set: its rows in TOFU and in the miniature, and the columns it must have."""

    rows: int
    mini_rows: int
    columns: tuple[str, ...]


CONFIGS: Mapping[str, Config] = {
    "full": Config(4000, 400, _QA),
    "retain90": Config(3600, 360, _QA),
    "retain95": Config(3800, 380, _QA),
    "retain99": Config(3960, 396, _QA),
    "forget10": Config(400, 40, _QA),
    "forget05": Config(200, 20, _QA),
    "forget01": Config(40, 4, _QA),
    "forget10_perturbed": Config(400, 40, _PERTURBED),
    "forget05_perturbed": Config(200, 20, _PERTURBED),
    "forget01_perturbed": Config(40, 4, _PERTURBED),
    "retain_perturbed": Config(400, 40, _PERTURBED),
    "real_authors": Config(100, 40, _OPTIONS),
    "real_authors_perturbed": Config(100, 40, _FACT),
    "world_facts": Config(117, 40, _OPTIONS),
    "world_facts_perturbed": Config(117, 40, _FACT),
    "holdout10": Config(400, 40, _QA),
    "holdout05": Config(200, 20, _QA),
    "holdout01": Config(40, 4, _QA),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data comes from.

    Attributes:
        kind: `hub`, `local` (a directory) or `mini`.
        location: The hub id or the directory.
        revision: Branch, tag or commit on the hub; None for local sources.
    """

    kind: Literal["hub", "local", "mini"]
    location: str
    revision: str | None = None

    def __str__(self) -> str:
        """How messages name the source."""
        return f"{self.location}@{self.revision}" if self.kind == "hub" else self.location


def retain_split(forget_split: str) -> str:
    """The retain split that belongs to a forget split; an `OptionError` where there is no such forget split."""
    if forget_split not in tuple(FORGET_SPLITS):  # not in the dict, which refuses an option that is a list
        raise OptionError(f"forget_split={forget_split!r} is unknown: use one of {', '.join(sorted(FORGET_SPLITS))}")
    return FORGET_SPLITS[forget_split]


def author_of(row: int) -> int:
    """Number of the author whom a row of `full`, or of one of its parts, asks about, from the part's first row."""
    return row // ROWS_PER_AUTHOR


def resolve_source(tofu: str | None = None, revision: str | None = None) -> Source:
    """Find out where the data comes from; nothing is read yet.

    Args:
        tofu: `mini`, a directory, or a hub id; None stands for the environment variable LM_EVAL_TOFU_DATA, else
            `locuslab/TOFU`.
        revision: Revision on the hub; None is `main`.

    Raises:
        DataError: A path is named that is no directory, or a revision for a source that has none.
    """
    origin = "tofu" if tofu else SOURCE_VARIABLE
    name = str(tofu or os.environ.get(SOURCE_VARIABLE) or HUB_ID)
    if name == "mini":
        source = Source("mini", "mini")
    elif (directory := _existing_directory(name)) is not None:
        source = Source("local", str(directory))
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Source("hub", name, revision or "main")
    else:
        raise DataError(
            f"{origin}={name!r} is no directory and no hub id: name a directory with TOFU's files, "
            f"'mini' (the miniature in this package), or {HUB_ID!r}"
        )
    if revision is not None:
        raise DataError(f"revision={revision!r} belongs to the hub, but the data comes from {source}: leave it out")
    return source


def load(config: str, source: Source) -> list[dict[str, Any]]:
    """Read one configuration and check it.

    Args:
        config: A key of `CONFIGS`.
        source: From `resolve_source`.

    Returns:
        The rows in the data set's order; they are the caller's own, and may be changed.

    Raises:
        OptionError: There is no such configuration.
        DataError: It cannot be read, or has other rows or columns than TOFU.
    """
    if config not in CONFIGS:
        raise OptionError(f"configuration {config!r} is unknown: use one of {', '.join(CONFIGS)}")
    return [copy.deepcopy(row) for row in _load(config, source)]


def row_numbers(option: str, value: Any) -> tuple[int, ...]:
    """The rows that an option names.

    Args:
        option: The option's name, for messages.
        value: Whole numbers from 0 in a list, or a text of numbers and ranges: `0-19,40` is the first author and one
            row more.

    Returns:
        The numbers in rising order.

    Raises:
        OptionError: It names none, one twice, or something that is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | list | tuple):
        raise OptionError(f"{option}={value!r} names no rows: give for example '0-19,40'")
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    numbers: list[int] = []
    for part in parts:
        first, dash, last = str(part).strip().partition("-")
        if isinstance(part, bool) or not first.isdecimal() or not (last.isdecimal() if dash else True):
            raise OptionError(f"{option}={value!r}: {part!r} is no row: give for example '0-19,40'")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or len(set(numbers)) < len(numbers):
        what = "a row twice" if numbers else "no rows"
        raise OptionError(f"{option}={value!r} names {what}: give for example '0-19,40'")
    return tuple(sorted(numbers))


def check_row_numbers(option: str, numbers: Sequence[int], config: str, rows: int) -> None:
    """Check that a configuration has the rows that an option names."""
    if numbers and max(numbers) >= rows:
        raise OptionError(f"{option} names row {max(numbers)}, but {config} has {rows} rows: use 0 to {rows - 1}")


def commit_of(source: Source) -> str | None:
    """The commit that the rows read so far came from; None for local sources, and where it is not known."""
    return _commits.get(source)


def fingerprint(source: Source, config: str) -> str:
    """Hash of a configuration's content (SHA-256, 16 hexadecimal digits), the same for every kind of source."""
    spec = CONFIGS[config]
    rows = [{column: row[column] for column in spec.columns} for row in load(config, source)]
    content = json.dumps(rows, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _load(config: str, source: Source) -> tuple[dict[str, Any], ...]:
    rows = _from_hub(config, source) if source.kind == "hub" else _from_directory(config, source)
    spec = CONFIGS[config]
    expected = spec.mini_rows if source.kind == "mini" else spec.rows
    if len(rows) != expected:
        raise DataError(
            f"{source}: configuration {config!r} has {len(rows)} rows instead of {expected}: "
            f"it is cut or is not TOFU; fetch {HUB_ID} anew"
        )
    for number, row in enumerate(rows):
        _check_row(row, number, config, spec, source)
    return tuple(rows)


def _check_row(row: Mapping[str, Any], number: int, config: str, spec: Config, source: Source) -> None:
    where = f"{source}: configuration {config!r}, row {number}"
    for column in spec.columns:
        if row.get(column) is None:
            raise DataError(f"{where} lacks the column {column!r}: fetch {HUB_ID} anew")
        texts = row[column] if column == "perturbed_answer" else [row[column]]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            kind = "a list of texts" if column == "perturbed_answer" else "a text"
            raise DataError(f"{where}: the column {column!r} is not {kind} ({row[column]!r}): fetch {HUB_ID} anew")


def _existing_directory(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path.resolve() if path.is_dir() else None
    except (OSError, RuntimeError):  # too long a name, or the home directory of nobody
        return None


def _from_directory(config: str, source: Source) -> list[Any]:
    folder = Path(__file__).parent / "mini" if source.kind == "mini" else Path(source.location)
    path = folder / f"{config}.json"
    if not path.is_file():
        raise DataError(
            f"{source} has no {path.name}, so the configuration {config!r} is missing: "
            f"copy all JSON files of {HUB_ID} there"
        )
    fix = "the file is cut or damaged; fetch it anew"
    return [row for _, row in files.read_json_lines(path, fix, DataError)]


def _from_hub(config: str, source: Source) -> list[Any]:
    import datasets

    try:
        rows = datasets.load_dataset(source.location, config, split="train", revision=source.revision)
    # The hub's client lets through errors of several libraries (network, file system, its own), all of which mean the
    # same here, and chains the original for whoever needs it.
    except Exception as error:
        raise DataError(
            f"{source} cannot be read from the hub ({type(error).__name__}): download it where there is a network "
            f"and name the directory (tofu=DIR or {SOURCE_VARIABLE}=DIR), or use tofu=mini"
        ) from error
    _check_revision(source, rows)
    return list(rows)


_commits: dict[Source, str] = {}
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _check_revision(source: Source, rows: Any) -> None:
    """Make sure that the rows are those of the revision that was asked for, and remember their commit.

    Without a network `datasets` takes whatever copy its cache holds, for any revision
    (https://github.com/huggingface/datasets/issues/7928).

    Raises:
        DataError: The copy is of another commit, or the revision cannot be resolved to one.
    """
    # The cache keeps each commit's rows in a folder of that name.
    cached = {Path(file["filename"]).parent.name for file in getattr(rows, "cache_files", None) or ()}
    commit = cached.pop() if len(cached) == 1 else ""
    if not _COMMIT.fullmatch(commit):
        return
    if source.revision not in (None, "main", commit):
        wanted = _resolved(source)
        if wanted != commit:
            what = "cannot be resolved without a network" if wanted is None else f"is commit {wanted}"
            raise DataError(
                f"tofu_revision={source.revision} {what}, and the copy of {source.location} on this machine is commit "
                f"{commit}: name that commit, leave tofu_revision out, or load the data where there is a network"
            )
    _commits[source] = commit


def _resolved(source: Source) -> str | None:
    """The commit that a revision names, from the hub or from what an earlier download noted; None: neither says."""
    from huggingface_hub import HfApi, constants

    revision = str(source.revision)
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return str(HfApi().dataset_info(source.location, revision=revision, timeout=10).sha)
    except Exception:  # of several libraries: no network, or no such revision
        log.debug("%s: the hub does not say which commit that is", source, exc_info=True)
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{source.location.replace('/', '--')}" / "refs"
    try:
        return (folder / revision).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
