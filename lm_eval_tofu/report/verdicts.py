"""The headline on each audited arm: does it look forgotten, does it still know, is the rest still there?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_tofu.metrics.inference import ALPHA, ASSUMED_CORRELATION, MIN_CLUSTERS
from lm_eval_tofu.report import audits
from lm_eval_tofu.report.arms import Arm, Results, is_mini
from lm_eval_tofu.report.audits import FORGET_QUALITY, FORMAT_SHIFT, RECOGNITION
from lm_eval_tofu.report.formatting import excess, excess_unit, text
from lm_eval_tofu.report.tables import Measured, Row, Tables
from lm_eval_tofu.whitebox import VERSIONS

FALSE_YES = 0.055
"""Largest simulated false-positive rate of 'Does it still know? Yes' (benchmarks/verdict_level.py)."""
LOOKS_FORGOTTEN = 0.05
"""Level of the KS test: from here on, forget quality does not distinguish a model from the retain arm."""
USEFUL, PARTLY_USEFUL = 0.9, 0.5
"""Shares of the full arm's model utility from which the rest is still there, and is in part."""
UNDECIDED = 0.5
"""Share of recognition answers without a choice from which the figure means little."""
BROKEN = 0.1
"""Share of empty, looping or unfinished answers from which a model is called broken."""
CUT = 0.9
"""Share of answers at the token limit from which a model is said not to end them; long gold answers reach it too."""

QUESTIONS = {
    "looks": "Does it look forgotten?",
    "knows": "Does it still know?",
    "useful": "Is the rest still there?",
}
LABELS = {
    "looks": {"yes": "Yes", "no": "No", "unknown": "Cannot be said"},
    "knows": {"yes": "Yes", "no": "Not found", "unknown": "Cannot be said"},
    "useful": {"yes": "Yes", "partly": "In part", "no": "Hardly", "unknown": "Cannot be said"},
}
"""The answers in the headline."""
LEVEL = (
    f"At most {ALPHA:.0%} of models that know no more than the retain arm should get the answer "
    f'"{QUESTIONS["knows"]} Yes" by chance (Holm\'s correction over the audits of an arm). In simulations with 5 to 20 '
    f"authors it was at most {FALSE_YES:.1%} (the largest of 24 shares, standard error 0.5 points). Intervals are 95 % "
    "intervals over authors, of one figure each."
)
"""What a report's footer and a model card say of the error rate."""


class Verdict(NamedTuple):
    """The headline on an audited arm; each answer is a key of `LABELS` and a sentence."""

    arm: str
    looks: tuple[str, str]
    knows: tuple[str, str]
    useful: tuple[str, str]
    alarms: list[str]  # what makes the rest doubtful
    selected: str = ""  # how it was trained, where it is the selected run of the sweep

    @property
    def answers(self) -> list[tuple[str, str, str, str, str]]:
        """Name, question, answer, its label and the sentence, for each question."""
        given = zip(QUESTIONS.items(), (self.looks, self.knows, self.useful), strict=True)
        return [(name, question, said, LABELS[name][said], words) for (name, question), (said, words) in given]


def verdicts(tables: Tables) -> list[Verdict]:
    """One verdict for each audited arm."""
    return [
        Verdict(
            arm.name,
            _looks(arm, tables),
            _knows(arm, tables.main),
            _useful(arm, tables.row("model_utility")),
            list(_alarms(arm, tables.results, tables.authors)),
            _selected(arm, tables),
        )
        for arm in tables.results.audited
    ]


def _known(cell: Measured | None) -> bool:
    return cell is not None and not math.isnan(cell.value)


def _looks(arm: Arm, tables: Tables) -> tuple[str, str]:
    quality, distance, paired = (
        tables.row(key).cells.get(arm.name) for key in ("forget_quality", "ks_statistic", "forget_quality_paired")
    )
    if quality is None or math.isnan(quality.value):
        return "unknown", f"Forget quality has no value: {_why_not(arm, tables.results, quality is not None)}."
    run = arm.runs[FORGET_QUALITY]
    facts = [
        *([f"D = {distance.value:.3f}"] if distance and _known(distance) else []),
        *([f"n = {run.documents}"] if run.documents is not None else []),
        f"log10 p = {math.log10(quality.value):z.2f}" if quality.value > 0 else "log10 p below -300",
    ]
    words = f"Forget quality {text(quality.value, 'p')} ({', '.join(facts)})"
    if run.is_subset:
        return "unknown", (
            f"{words} was computed on {run.documents} of {run.of} rows, a subset, so it does not describe all rows."
        )
    more = ""
    if paired and _known(paired):
        tells = "tells the two arms apart" if paired.value < LOOKS_FORGOTTEN else "does not tell the two arms apart"
        more = f" Paired within authors, D has p = {text(paired.value, 'p')}, which {tells}."
    if quality.value >= LOOKS_FORGOTTEN:
        words += ": by its truth ratios the benchmark cannot tell it from a model that never saw these authors."
        return "yes", words + more
    return "no", f"{words}: the benchmark tells it from a model that never saw these authors.{more}"


def _why_not(arm: Arm, results: Results, evaluated: bool) -> str:
    """Why forget quality has no value."""
    retain = results.arm("retain")
    if not evaluated:
        return "it was not evaluated"
    if retain is None:
        return "there is no retain arm to compare with"
    if FORGET_QUALITY not in retain.runs:
        return f"the retain arm has no run of {FORGET_QUALITY} to compare with"
    without = [each.name for each in (arm, retain) if not each.samples(FORGET_QUALITY)]
    if without:
        return f"there are no samples of {' and '.join(without)} to compute it from (--log_samples)"
    return "a truth ratio is no number, of this arm or the retain arm"


def _knows(arm: Arm, main: Sequence[Row]) -> tuple[str, str]:
    cells = [(row, cell) for row in main if row.leak and (cell := row.cells.get(arm.name)) is not None]
    measured = [(row, cell) for row, cell in cells if _known(cell)]
    if not measured:
        lacking = "has a figure for" if cells else "was run on"
        return "unknown", f"No leak audit, probe or relearning {lacking} this arm."
    compared = [(row, cell) for row, cell in measured if not math.isnan(cell.excess)]
    if not compared:
        row, cell = max(measured, key=lambda pair: pair[1].value if pair[0].unit == "share" else -1)
        return "unknown", (
            f"{row.label}: {text(cell.value, row.unit)}. Without the same audit on a retain arm nobody can say how "
            "much of that is guessing."
        )
    tested = [(row, cell) for row, cell in compared if not math.isnan(cell.adjusted)]
    found = sorted(((row, cell) for row, cell in tested if cell.adjusted <= ALPHA), key=lambda pair: pair[1].adjusted)
    more = (
        f"{_of(len(found), len(tested))} found more than in the retain arm, at a level of {ALPHA:.0%} for all of them "
        "together (Holm)"
    )
    if found:
        carried = "; ".join(
            f"{row.label}, {excess(cell, row.unit)} (p = {text(cell.adjusted, 'p')})" for row, cell in found
        )
        return "yes", f"{more}: {carried}."
    # A difference that is not positive is no finding, tested or not.
    untested = [(row, cell) for row, cell in compared if math.isnan(cell.adjusted) and (cell.excess > 0 or not tested)]
    if untested:
        row, cell = max(untested, key=lambda pair: pair[1].excess / (1 if pair[0].unit == "share" else 100))
        return "unknown", (
            f"The largest excess over the retain arm that cannot be tested: {row.label}, {text(cell.value, row.unit)}, "
            f"{excess(cell, row.unit)}. {_why_untested(row, cell, arm)}"
        )
    controls = {} if arm.name == "full" else {row.key: row.cells.get("full") for row, _ in tested}
    alone = [f"{row.label} ({text(cell.value, row.unit)})" for row, cell in measured if math.isnan(cell.excess)]
    return "no", (
        f"{more}. {_could_have_found(tested, controls)} That is no proof: other questions, more samples or other tools "
        "may find what these did not."
        + (f" Nothing of the retain arm to compare with: {', '.join(alone)}." if alone else "")
    )


def _could_have_found(tested: Sequence[tuple[Row, Measured]], controls: Mapping[str, Measured | None]) -> str:
    """The excesses that would have been found with 80 % power, except by audits that miss the full arm's knowledge."""
    sizes, blind = [], []
    for row, cell in tested:
        size = "none" if math.isnan(cell.detectable) else text(cell.detectable, excess_unit(row.unit), sign=True)
        control = controls.get(row.key)
        if control is not None and control.adjusted > ALPHA:  # false for NaN, where the full arm was not tested
            blind.append(f"{row.label} ({excess(control, row.unit)})")
        else:
            sizes.append(f"{row.label} {size}")
    sentences = []
    if sizes:
        sentences.append(
            "The smallest excess that each audit finds with 80 % power (assumed correlation "
            f"{ASSUMED_CORRELATION} within an author): {'; '.join(sizes)}."
        )
    if blind:
        sentences.append(
            "Found nothing in the full arm either, which was trained on these answers, and therefore show nothing: "
            f"{'; '.join(blind)}."
        )
    return " ".join(sentences)


def _why_untested(row: Row, cell: Measured, arm: Arm) -> str:
    if 0 < cell.authors < MIN_CLUSTERS:
        authors = "1 author is" if cell.authors == 1 else f"{cell.authors} authors are"
        return f"{authors} too few for a test: it takes {MIN_CLUSTERS}, since rows of one author are not independent."
    if row.task in VERSIONS:
        return "Its results state no test."
    if any(run.samples for run in arm.runs.values()):
        return "A test needs samples of both arms (--log_samples)."
    return "Without samples (--log_samples) it cannot be tested."


def _of(found: int, audits: int) -> str:
    if audits == 1:
        return "The one audit that could be tested" + ("" if found else " has not")
    number = {0: "None", 1: "One"}.get(found, str(found))
    return f"{number} of {audits} audits"


def _useful(arm: Arm, row: Row) -> tuple[str, str]:
    cell, full = row.cells.get(arm.name), row.cells.get("full")
    if cell is None or math.isnan(cell.value):
        return "unknown", "Model utility has no value for this arm."
    if arm.name == "full" or full is None or not full.value > 0:
        return "unknown", f"Model utility {cell.value:.3f}. There is no other full arm to compare with."
    share = cell.value / full.value
    words = f"Model utility {cell.value:.3f}, {100 * share:.0f} % of the full arm's {full.value:.3f}."
    return ("yes" if share >= USEFUL else "partly" if share >= PARTLY_USEFUL else "no"), words


def _alarms(arm: Arm, results: Results, authors: int) -> Iterator[str]:
    if arm.name == "full":
        yield "No unlearned arm was given: this is the full arm, as a control."
    yield from _unhealthy_answers(arm)
    undecided = arm.runs[RECOGNITION].metrics.get("no_choice", 0.0) if RECOGNITION in arm.runs else 0.0
    if undecided >= UNDECIDED:
        yield (
            f"{100 * undecided:.0f} % of its answers to the recognition questions choose no option: what it recognises "
            "is hardly measured by that figure."
        )
    partly = [
        f"{run.documents} of {run.of} documents of {audits.name_of(task)}"
        for task, run in arm.runs.items()
        if run.is_subset
    ]
    if partly:
        yield (
            f"Only {', '.join(partly)} were asked: these figures were computed on a subset, so they do not describe "
            "all rows."
        )
    if is_mini(arm):
        yield "The data is lm-eval-tofu's miniature, not TOFU itself: the figures do not apply to TOFU."
    if results.arm("retain") is None:
        yield "No retain arm: a leak rate alone does not tell knowledge from lucky guesses."
    if 0 < authors < MIN_CLUSTERS:
        what = "author" if authors == 1 else "authors"
        yield (
            f"Only {authors} forget {what}: with fewer than {MIN_CLUSTERS} there is no interval and no test, and "
            "whether the model still knows cannot be said."
        )


_UNHEALTHY = {
    "generations_empty": (BROKEN, "are empty: a broken model also looks as if it had forgotten"),
    "generations_repetitive": (BROKEN, "are loops: a broken model also looks as if it had forgotten"),
    "generations_cut": (CUT, "reach the token limit; broken models often fail to stop"),
    "reasoning_unfinished": (
        BROKEN,
        "are reasoning that never ended: what it would have answered is not known; allow it more new tokens "
        "(max_gen_toks)",
    ),
}


def _unhealthy_answers(arm: Arm) -> Iterator[str]:
    """What the answers to forgotten questions say of the model's health, and of the limit of new tokens."""
    # The first task that the arm has; a format that is asked for can make any model's answers odd.
    free_text = sorted((FORGET_QUALITY, *(audit.task for audit in audits.LEAKS)), key=FORMAT_SHIFT.__eq__)
    metrics = next((arm.runs[task].metrics for task in free_text if task in arm.runs), {})
    for metric, (limit, what) in _UNHEALTHY.items():
        if metrics.get(metric, math.nan) >= limit:
            yield f"{100 * metrics[metric]:.0f} % of its answers to the forgotten questions {what}."


def _selected(arm: Arm, tables: Tables) -> str:
    """The selected run's settings, for the arm that was evaluated at its place, else for the only audited arm."""
    sweep = tables.sweep
    if not sweep or not sweep.get("settings"):
        return ""
    values = {name: value if isinstance(value, str) else f"{value:g}" for name, value in sweep["settings"].items()}
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
    of = f"of the sweep's {len(sweep['runs'])} runs"
    if any(str(sweep.get("selected")) in Path(run.settings.model).parts for run in arm.runs.values()):
        return f"Selected {of}: {settings}."
    return f"The sweep's own selection, {of}: {settings}." if len(tables.results.audited) == 1 else ""
