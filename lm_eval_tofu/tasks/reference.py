"""Reference runs: what another arm scored on the same rows.

`retain_reference` and `full_reference` take a directory or a samples file that `lm_eval --log_samples --output_path`
wrote for the same task, or open-unlearning's `TOFU_EVAL.json`.
"""

import functools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_tofu import arm, files
from lm_eval_tofu.arm import ArmSettings
from lm_eval_tofu.errors import OptionError, ReferenceRunError
from lm_eval_tofu.tasks import samples

log = logging.getLogger(__name__)

OPEN_UNLEARNING_FILE = "TOFU_EVAL.json"


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """One row of a reference run.

    Attributes:
        losses: Loss by answer column, nats/token; one number, or one for each perturbed answer.
        truth_ratio: R as the reference states it, where it gives no losses (older logs of open-unlearning).
        prompt_hash: lm-eval's hash of the rendered prompt; None where the reference has none.
        tokens: Number of scored tokens and hash of all token ids, `N:HASH`; likewise.
    """

    losses: Mapping[str, Any]
    truth_ratio: float | None = None
    prompt_hash: str | None = None
    tokens: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference run, checked against the rows of the present one.

    Attributes:
        option: The option that named it.
        path: The file it was read from.
        rows: By row index.
        settings: How it was run; None for open-unlearning's logs, which do not say.
    """

    option: str
    path: Path
    rows: Mapping[int, ReferenceRow]
    settings: ArmSettings | None = None

    def check_prompts(self, prompt_hashes: Mapping[int, str]) -> None:
        """Compare the prompts of both runs, row by row.

        Raises:
            ReferenceRunError: A row is missing in the reference, or was asked with another prompt.
        """
        missing = [index for index in sorted(prompt_hashes) if index not in self.rows]
        if missing:
            raise ReferenceRunError(
                f"{self.option}={str(self.path)!r} has {len(self.rows)} rows and lacks row {missing[0]}: "
                "it is cut (killed, or run with --limit); run the reference again on all rows"
            )
        for index, prompt_hash in sorted(prompt_hashes.items()):
            theirs = self.rows[index].prompt_hash
            if theirs is not None and theirs != prompt_hash:
                raise ReferenceRunError(
                    f"{self.option}={str(self.path)!r} asked row {index} with another prompt: run both arms "
                    "with the same --apply_chat_template, --system_instruction, chat_template_args and tokenizer"
                )

    def check_tokens(self, tokens: Mapping[int, str]) -> None:
        """Compare the token ids of prompts and scored answers, row by row.

        Args:
            tokens: Of the present run, as `ReferenceRow.tokens`, by row.

        Raises:
            ReferenceRunError: A row has other tokens in the reference.
        """
        for index, ours in sorted(tokens.items()):
            theirs = self.rows[index].tokens
            if theirs is None or theirs == ours:
                continue
            numbers = [text.partition(":")[0] for text in (theirs, ours)]
            fix = "evaluate both arms with the same tokenizer, special tokens and chat template"
            if numbers[0] != numbers[1]:
                raise ReferenceRunError(
                    f"{self.option}={str(self.path)!r} scored {numbers[0]} tokens of row {index}'s answers, this run "
                    f"scores {numbers[1]} (another end-of-turn token does that): {fix}"
                )
            raise ReferenceRunError(
                f"{self.option}={str(self.path)!r} scored other token ids in row {index} ({numbers[1]} of them, as "
                f"here): {fix}"
            )

    def check_settings(self, settings: ArmSettings) -> None:
        """Compare how both runs were made, and warn of what may move small differences.

        Raises:
            ReferenceRunError: They differ in something that makes their figures incomparable.
        """
        if self.settings is None:
            return
        where = f"{self.option}={str(self.path)!r}"
        if arm.has_same_weights(self.settings, settings):
            log.warning(
                "%s has the very weights of this run (%s): is it the right reference, and was the adapter loaded "
                "(peft=, lora_local_path=)?",
                where,
                settings.name,
            )
        for difference in arm.compare(self.settings, settings, "reference"):
            if difference.severity == "refused":
                raise ReferenceRunError(
                    f"{where}: {difference.differs} ({difference.values[0]} there, {difference.values[1]} here): "
                    f"run both arms with the same {difference.words}; it is set by {difference.option}"
                )
            if difference.severity == "warned":
                log.warning(
                    "%s: %s (%s there, %s here; set by %s): evaluate both arms alike before you read anything "
                    "into small differences",
                    where,
                    difference.differs,
                    *difference.values,
                    difference.option,
                )


def load_reference(
    option: str,
    value: str,
    *,
    task: str,
    version: Any,
    split: str,
    rows: Sequence[Mapping[str, Any]],
) -> Reference:
    """Read a reference run and check that it is one of the same task on the same rows.

    Args:
        option: Name of the option, for messages.
        value: Its value: a directory, a samples file or open-unlearning's log.
        task: Task that the reference must be a run of.
        version: That task's version.
        split: Forget split of the present run.
        rows: The present run's rows, with `index`, `question` and `answer`.

    Raises:
        ReferenceRunError: There is no such run, it cannot be read, or it is another task's, version's or split's.
    """
    path = _find(option, value, task)
    if path.suffix == ".json":
        return Reference(option, path, _open_unlearning_rows(option, path, split, rows))
    # The samples first: their messages say more than "no record" where the run is of another version.
    found = _sample_rows(option, path, task, version, split, rows)
    return Reference(option, path, found, _settings(option, path, task))


def _settings(option: str, file: Path, task: str) -> ArmSettings:
    """The settings of the run that wrote a samples file."""
    where = f"{option}={str(file)!r}"
    results = files.results_of_samples(file)
    if results is None:
        raise ReferenceRunError(
            f"{where}: the results file of the same time is not beside it (results_{files.time_of(file)}.json), "
            "which says how the run was made: put it back, or run the reference again"
        )
    settings = arm.settings_in(_content(option, results), task)
    if settings is None:
        raise ReferenceRunError(
            f"{where}: {results.name} does not say how the run was made, as results of another version of lm-eval-tofu"
            ": run the reference again"
        )
    return settings


def _find(option: str, value: str, task: str) -> Path:
    path = Path(os.path.expanduser(value))  # noqa: PTH111 - a user that does not exist is no error here
    how = f"run lm_eval --tasks {task} --log_samples --output_path DIR on that arm and name DIR"
    if path.is_file():
        return path
    if not path.is_dir():
        raise ReferenceRunError(f"{option}={value!r} does not exist: {how}")
    found = files.samples_files(path, task)
    if not found and (path / OPEN_UNLEARNING_FILE).is_file():
        return path / OPEN_UNLEARNING_FILE
    if not found:
        raise ReferenceRunError(f"{option}={value!r} holds no samples of {task}: {how}")
    runs = [(str(file.relative_to(path)), settings) for file in found if (settings := _settings_of(option, file, task))]
    try:
        arm.refuse_unless_same_model(f"{option}={value!r}", runs, retrained=True)
    except OptionError as error:
        raise ReferenceRunError(str(error)) from error
    if len({file.parent for file in found}) > 1 and len(runs) < len(found):
        folders = ", ".join(sorted({str(file.parent.relative_to(path)) for file in found}))
        raise ReferenceRunError(f"{option}={value!r} holds the results of several models ({folders}): name one of them")
    return found[-1]


def _settings_of(option: str, file: Path, task: str) -> ArmSettings | None:
    results = files.results_of_samples(file)
    return None if results is None else arm.settings_in(_content(option, results), task)


_FIX = "it is cut or damaged; run the reference again"


def _content(option: str, path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path, _FIX, ReferenceRunError)
    except ReferenceRunError as error:
        raise ReferenceRunError(f"{option}: {error}") from error


@functools.lru_cache(maxsize=16)
def _samples(path: Path, modified: int, task: str, version: Any) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return list(samples.read(path, task, version, needed=("losses",), fix=_FIX, error=ReferenceRunError))


def _sample_rows(
    option: str, path: Path, task: str, version: Any, split: str, rows: Sequence[Mapping[str, Any]]
) -> dict[int, ReferenceRow]:
    where = f"{option}={str(path)!r}"
    by_index = {row["index"]: row for row in rows}
    found = {}
    try:
        read = _samples(path, path.stat().st_mtime_ns, task, version)
    except ReferenceRunError as error:
        raise ReferenceRunError(f"{option}: {error}") from error
    for sample, record in read:
        if record["split"] != split:
            raise ReferenceRunError(
                f"{where} is a run on {record['split']}, this one is on {split}: "
                "run the reference with the same forget_split"
            )
        row = by_index.get(record["index"])
        if row is None or any(sample["doc"].get(key) != row[key] for key in ("question", "answer")):
            raise ReferenceRunError(
                f"{where}: its row {record['index']} is another one than this run's: "
                "run the reference on the same data (option tofu)"
            )
        _check_finite(where, record["index"], record["losses"])
        found[record["index"]] = ReferenceRow(
            record["losses"], prompt_hash=sample["prompt_hash"], tokens=record.get("tokens")
        )
    if not found:
        raise ReferenceRunError(f"{where} is empty: run the reference again")
    return found


def _open_unlearning_rows(
    option: str, path: Path, split: str, rows: Sequence[Mapping[str, Any]]
) -> dict[int, ReferenceRow]:
    where = f"{option}={str(path)!r}"
    metrics = {
        name: metric["value_by_index"]
        for name, metric in _content(option, path).items()
        if isinstance(metric, dict) and isinstance(metric.get("value_by_index"), dict)
    }
    if "forget_truth_ratio" not in metrics and "forget_Q_A_Prob" not in metrics:
        raise ReferenceRunError(
            f"{where} has neither forget_truth_ratio nor forget_Q_A_Prob with value_by_index: "
            f"name the {OPEN_UNLEARNING_FILE} of an evaluation on TOFU"
        )
    indices = [str(row["index"]) for row in rows]
    for name in ("forget_truth_ratio", "forget_Q_A_Prob"):
        if name in metrics and sorted(metrics[name]) != sorted(indices):
            raise ReferenceRunError(
                f"{where}: {name} has {len(metrics[name])} rows, {split} has {len(indices)}: "
                "name a log of the same split"
            )
    # The log does not name its split. Its ROUGE part repeats the prompts, without special tokens: they must be ours.
    for row in rows:
        asked = metrics.get("forget_Q_A_ROUGE", {}).get(str(row["index"]), {}).get("input")
        if asked is not None and row["question"].strip() not in asked:
            raise ReferenceRunError(
                f"{where}: its row {row['index']} asks another question than {split}: name a log of the same split"
            )
    columns = {"answer": "forget_Q_A_Prob", "paraphrased_answer": "forget_Q_A_PARA_Prob"}
    columns["perturbed_answer"] = "forget_Q_A_PERT_Prob"
    found = {}
    for index in indices:
        losses = {c: metrics[m][index]["avg_loss"] for c, m in columns.items() if index in metrics.get(m, {})}
        score = metrics.get("forget_truth_ratio", {}).get(index, {}).get("score")
        _check_finite(where, index, losses if score is None else {**losses, "truth ratio": score})
        found[int(index)] = ReferenceRow(losses, truth_ratio=score)
    return found


def _check_finite(where: str, index: int | str, values: Mapping[str, Any]) -> None:
    """Refuse a reference that would turn every comparison with it into NaN."""
    for name, value in values.items():
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise ReferenceRunError(
                    f"{where}: row {index} has {number} for {name}, which is not a finite number: run the reference "
                    "again with dtype=float32 (or bfloat16 instead of float16), and check its weights"
                )
