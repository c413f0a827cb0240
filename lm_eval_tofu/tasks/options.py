"""The options of the tasks, given to lm-eval as `--metadata '{"forget_split": "forget10", ...}'`."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.benchmark import EPS
from lm_eval_tofu.tasks import families
from lm_eval_tofu.tofu import Source, resolve_source, retain_split, row_numbers

log = logging.getLogger(__name__)

_OURS = ("tofu", "forget", "retain_", "full_", "truth_ratio", "famil", "formats", "best_of_n")
"""How keys begin that can only be meant for us: lm-eval puts the model's arguments into the same mapping."""

_ALIASES = {
    "retain": "retain_reference",
    "full": "full_reference",
    "reference": "retain_reference",
    "split": "forget_split",
    "rows": "forget_rows",
    "eps": "truth_ratio_eps",
    "n": "best_of_n",
    "data": "tofu",
}
"""Common misspellings of option names."""

_OF_TASKS = {
    "truth_ratio_eps": ("forget_quality", "model_utility"),
    "retain_reference": ("forget_quality",),
    "full_reference": ("answer_logprob",),
    "families": ("novel_recall",),
    "formats": ("format_shift",),
    **dict.fromkeys(("best_of_n", "best_of_n_temperature", "best_of_n_top_p", "best_of_n_prompts"), ("best_of_n",)),
}
"""Options that some tasks alone follow, and how the names of these tasks end."""


def is_followed(option: str, task: str) -> bool:
    """Whether a task follows an option."""
    return option not in _OF_TASKS or task.endswith(_OF_TASKS[option])


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the tasks.

    Attributes:
        forget_split: forget01, forget05 or forget10.
        tofu: Data source: `mini`, a directory, a hub id; None: LM_EVAL_TOFU_DATA, else `locuslab/TOFU`.
        tofu_revision: The hub's branch, tag or commit; None: main.
        retain_reference: Results of `tofu_forget_quality` on the retain arm.
        full_reference: Results of `tofu_answer_logprob` on the full arm.
        truth_ratio_eps: Added to the denominators of truth ratio and normalised probability.
        families: Prompt families of `tofu_novel_recall`; names, or one text that joins them by commas. None: all.
        formats: Output formats of `tofu_format_shift`, likewise.
        best_of_n: Samples of `tofu_best_of_n` for each row.
        best_of_n_temperature: Their temperature.
        best_of_n_top_p: Their nucleus.
        best_of_n_prompts: The prompt family that is sampled.
        forget_rows: Rows of the forget split that the leak audits ask for, as `lm_eval_tofu.tofu.row_numbers` takes
            them. None: all.
    """

    forget_split: str = "forget10"
    tofu: str | None = None
    tofu_revision: str | None = None
    retain_reference: str | None = None
    full_reference: str | None = None
    truth_ratio_eps: float = EPS
    families: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    best_of_n: int = 32
    best_of_n_temperature: float = 1.0
    best_of_n_top_p: float = 1.0
    best_of_n_prompts: str = "direct"
    forget_rows: tuple[int, ...] | None = None

    @property
    def source(self) -> Source:
        """The data source that the options name."""
        return resolve_source(self.tofu, self.tofu_revision)

    @property
    def asked_families(self) -> tuple[str, ...]:
        """The prompt families of `tofu_novel_recall` that are asked."""
        return self.families or families.NOVEL_RECALL

    @property
    def asked_formats(self) -> tuple[str, ...]:
        """The output formats of `tofu_format_shift` that are asked for."""
        return self.formats or families.FORMAT_SHIFT

    @property
    def checked_formats(self) -> tuple[str, ...]:
        """Those of them that a program can tell."""
        return tuple(name for name in families.CHECKED_FORMATS if name in self.asked_formats)

    @property
    def leak_at(self) -> tuple[int, ...]:
        """The k of leak@k that are reported: the powers of two up to the number of samples, and that number."""
        powers = (2**power for power in range(self.best_of_n.bit_length()))
        return tuple(sorted({*powers, self.best_of_n}))

    def recorded(self, task: str) -> dict[str, Any]:
        """The options that one task follows, as JSON values; where they choose from a list, what is chosen."""
        values = asdict(self) | {
            "families": self.families or families.NOVEL_RECALL,
            "formats": self.formats or families.FORMAT_SHIFT,
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if is_followed(name, task)
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Options":
        """Pick our options out of lm-eval's metadata and check them.

        Raises:
            OptionError: A key looks like one of ours and is not, or a value cannot be used.
        """
        names = [field.name for field in fields(cls)]
        for key in metadata:
            if key in names or not isinstance(key, str):
                continue
            if key.lower() in _ALIASES:
                # It could be an option of another task of the same call.
                log.warning("metadata key %r is none of TOFU's options: did you mean %r?", key, _ALIASES[key.lower()])
                continue
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.85)
            if near or key.startswith(_OURS):
                hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(names)}"
                raise OptionError(f"metadata key {key!r} is unknown: {hint}")
        values = {name: metadata[name] for name in names if metadata.get(name) is not None}
        for name in ("retain_reference", "full_reference", "tofu"):
            if values.get(name) == "":
                raise OptionError(f"{name}='' names nothing, as an unset variable does: leave it out, or name one")
        for name, known in (("families", families.NOVEL_RECALL), ("formats", families.FORMAT_SHIFT)):
            if name in values:
                values[name] = families.chosen(name, values[name], known)
        if "forget_rows" in values:
            values["forget_rows"] = row_numbers("forget_rows", values["forget_rows"])
        options = cls(**values)
        retain_split(options.forget_split)
        eps = options.truth_ratio_eps
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
            raise OptionError(f"truth_ratio_eps={eps!r} is no number in [0, 1): leave it out for {EPS}")
        options._check_sampling()
        return options

    def _check_sampling(self) -> None:
        count, temperature, top_p = self.best_of_n, self.best_of_n_temperature, self.best_of_n_top_p
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise OptionError(f"best_of_n={count!r} is no whole number from 1 up: leave it out for 32")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < 10:
            raise OptionError(f"best_of_n_temperature={temperature!r} is no number in [0, 10): leave it out for 1.0")
        if temperature == 0 and count > 1:
            raise OptionError(
                f"best_of_n_temperature=0 makes all {count} samples the same: give one above 0, or best_of_n=1"
            )
        if isinstance(top_p, bool) or not isinstance(top_p, int | float) or not 0 < top_p <= 1:
            raise OptionError(f"best_of_n_top_p={top_p!r} is no number in (0, 1]: leave it out for 1.0")
        if self.best_of_n_prompts not in families.NOVEL_RECALL:
            raise OptionError(
                f"best_of_n_prompts={self.best_of_n_prompts!r} is unknown: "
                f"use one of {', '.join(families.NOVEL_RECALL)}"
            )
