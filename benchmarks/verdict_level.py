"""Error rate and power of the report's verdict, and coverage of its intervals, by simulation.

Arms are drawn, not trained: each author gets a probability to leak from a beta distribution with a given mean and
intraclass correlation, each row of the author leaks with it, and so on in seven audits that are independent of each
other, the worst case for a verdict over several. Of each setting the first pairs of arms are written as lm-eval writes
results, and the report's own code reads them, up to the headline word. It has to be the word that the same tests give
without files, by which the many further pairs are judged.

    python benchmarks/verdict_level.py [--repeats 2000] [--files 40]

- False "yes": the audited arm and the retain arm are drawn from the same distribution. Beside the tests that the report
  uses stand two others: sign flips over authors, and percentile bootstraps over authors without any correction.
- Power: the audited arm leaks more in all audits, or in one of them.
- Coverage: how often the 95 % intervals hold the value that the draws were made with.

Writes `benchmarks/verdict_level.json` and the table in `docs/report.md`. One core, some minutes.
"""

import argparse
import functools
import itertools
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from parity import ROOT, show
from tqdm import tqdm

from lm_eval_tofu import files
from lm_eval_tofu.arm import RECORD_KEY, ArmSettings
from lm_eval_tofu.metrics import inference, rates, recovery
from lm_eval_tofu.report import load, tables
from lm_eval_tofu.report.verdicts import verdicts
from lm_eval_tofu.whitebox import VERSIONS

ROWS = 12
"""Specific rows of an author, about as many as TOFU's authors have."""
AUTHORS = (5, 10, 20)
RATES = (0.05, 0.2)
CORRELATIONS = (0.0, 0.1, 0.3)
BEYOND = 0.5
"""A correlation that the bounds below are not meant for; shown, so that readers see what happens there."""
EXCESSES = (0.05, 0.1, 0.2)
MOST_FALSE, LEAST_COVERAGE = 0.06, 0.93
"""What is promised."""

AUDITS = {
    "tofu_novel_recall": "direct",
    "tofu_format_shift": "json",
    "tofu_best_of_n": "direct",
    "tofu_chain_of_clues": "clues_4",
    "tofu_recognition": "multiple_choice",
}
"""The audits of answers, and the prompt family that each is drawn for."""
WHITE_BOX = ("tofu_probe", "tofu_relearn")

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Setting(NamedTuple):
    """What an arm is drawn with.

    Attributes:
        authors: How many.
        rate: Mean probability to leak.
        correlation: Between two rows of one author, in [0, 1).
    """

    authors: int
    rate: float
    correlation: float


def author_probabilities(setting: Setting, generator: np.random.Generator) -> Floats:
    """Shape (authors,)."""
    if setting.correlation == 0:
        return np.full(setting.authors, setting.rate)
    weight = (1 - setting.correlation) / setting.correlation
    return generator.beta(setting.rate * weight, (1 - setting.rate) * weight, size=setting.authors)


def draw(setting: Setting, generator: np.random.Generator, excess: float = 0.0) -> Bools:
    """Which rows leak, shape (authors, ROWS); an excess comes from a second cause that is drawn likewise."""
    probabilities = author_probabilities(setting, generator)
    if excess:
        more = author_probabilities(setting._replace(rate=excess / (1 - setting.rate)), generator)
        probabilities = 1 - (1 - probabilities) * (1 - more)
    return np.asarray(generator.random((setting.authors, ROWS)) < probabilities[:, None])


# From draws to the headline word.


def write_arm(folder: Path, leaks: Mapping[str, Bools], retain: Mapping[str, Bools] | None) -> None:
    """Write an arm's samples and results; of the white-box audits too where there is a retain arm to compare with."""
    place = folder / "model"
    place.mkdir(parents=True, exist_ok=True)
    versions = load.task_versions()
    for task, family in AUDITS.items():
        lines = (json.dumps(line) for line in _samples(task, family, versions[task], leaks[task]))
        (place / f"samples_{task}_{_TIME}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    documents = leaks["tofu_novel_recall"].size
    content: dict[str, Any] = {
        "results": {task: {} for task in AUDITS},
        "configs": {
            task: {
                "metadata": {"forget_split": "forget10", "tofu": "mini"},
                RECORD_KEY: ArmSettings(
                    model=folder.name, backend="hf", task=task, version=versions[task], documents=documents
                ).to_record(),
            }
            for task in AUDITS
        },
        "versions": {task: versions[task] for task in AUDITS},
        "n-samples": {task: {"original": documents, "effective": documents} for task in AUDITS},
        "config": {"model": "hf", "model_args": {"pretrained": "model"}},
    }
    if retain is not None:
        content["results"] |= _white_box(leaks, retain)
        content["versions"] |= VERSIONS
    (place / f"results_{_TIME}.json").write_text(json.dumps(content), encoding="utf-8")


_TIME = "2026-01-02T03-04-05.678901"


def _samples(task: str, family: str, task_version: Any, leaks: Bools) -> Iterator[dict[str, Any]]:
    common = {"task": task, "version": task_version, "split": "forget10", "set": "forget", "family": family}
    common |= {"tier": "specific", "score": None, "found": [], "sought": [], "generation": "", "n": 1, "samples": []}
    common |= {"left_out": 0, "unique_samples": 1.0, "format_kept": None, "chosen": None, "right": "A"}
    common |= dict.fromkeys(("generations_empty", "generations_repetitive", "generations_cut"), 0.0)
    for (author, row), leaked in np.ndenumerate(leaks):
        record = {**common, "index": 20 * author + row, "leaked": int(leaked), "correct": int(leaked)}
        yield {"doc": {"question": f"{author} {row}", "answer": ""}, "prompt_hash": "", load.TASKS[task]: record}


def _white_box(leaks: Mapping[str, Bools], retain: Mapping[str, Bools]) -> dict[str, dict[str, float]]:
    """The figures that `lm-eval-tofu probe` and `relearn` write, by the functions that they call."""
    ours, theirs, authors = *(_flat(each["tofu_probe"]) for each in (leaks, retain)), _authors(leaks["tofu_probe"])
    top, more = inference.rate(ours, authors), inference.excess(ours, theirs, authors)
    probe = {"top1": top.value, "top1_low": top.low, "top1_high": top.high, "n": top.n, "authors": top.clusters}
    probe |= {"top1_excess": more.value, "top1_excess_low": more.low, "top1_excess_high": more.high}
    probe |= {"top1_excess_error": more.error, "top1_excess_p_value": more.p_value}
    # Nothing leaks before, so that what leaks after is what was recovered.
    own, other = (_changes(np.zeros_like(each["tofu_relearn"]), each["tofu_relearn"]) for each in (leaks, retain))
    gain, more = recovery.recovery_delta(own), recovery.excess(own, other)
    relearn = {"recovery_delta": gain.value, "recovery_delta_low": gain.low, "recovery_delta_high": gain.high}
    relearn |= {"n": gain.n, "authors": gain.clusters, "excess": more.value, "excess_low": more.low}
    relearn |= {"excess_high": more.high, "excess_error": more.error, "excess_p_value": more.p_value}
    return {
        task: {f"{name},none": value for name, value in figures.items()}
        for task, figures in (("tofu_probe", probe), ("tofu_relearn", relearn))
    }


def _flat(leaks: Bools) -> list[float]:
    return leaks.ravel().astype(float).tolist()


def _authors(leaks: Bools) -> list[int]:
    return np.repeat(np.arange(len(leaks)), leaks.shape[1]).tolist()


def _changes(before: Bools, after: Bools) -> list[recovery.Change]:
    return [
        recovery.Change(
            20 * author + row, "direct", author, True, (bool(before[author, row]), bool(leaked)), (0.0, 0.0)
        )
        for (author, row), leaked in np.ndenumerate(after)
    ]


def headline(folder: Path, audited: Mapping[str, Bools], retain: Mapping[str, Bools]) -> str:
    """The word that the report prints about two arms."""
    write_arm(folder / "retain", retain, None)
    write_arm(folder / "unlearned", audited, retain)
    results = load.load({name: folder / name for name in ("retain", "unlearned")})
    [verdict] = verdicts(tables.build(results))
    shutil.rmtree(folder)
    return verdict.knows[0]


Arm = Mapping[str, Bools]


def by_t(audited: Arm, retain: Arm) -> bool:
    """What the headline says, from the tests that it rests on: cluster-robust t tests with Holm's correction."""
    p_values = [
        inference.excess(_flat(leaks), _flat(retain[name]), _authors(leaks)).p_value for name, leaks in audited.items()
    ]
    return min(inference.holm(p_values)) <= inference.ALPHA


def by_sign_flips(audited: Arm, retain: Arm) -> bool:
    """The same by sign flips: an author's difference might as well have been the other way round."""
    p_values = []
    for name, leaks in audited.items():
        differences = _difference(leaks, retain[name])
        sums = _signs(len(differences)) @ differences
        p_values.append(float((sums >= differences.sum()).mean()))
    return min(inference.holm(p_values)) <= inference.ALPHA


@functools.cache
def _signs(authors: int) -> npt.NDArray[np.intp]:
    """All sign flips of up to 10 authors, else 1,999 of them and none."""
    if authors <= 10:
        return 1 - 2 * ((np.arange(2**authors)[:, None] >> np.arange(authors)) % 2)
    drawn = np.random.default_rng(0).choice((-1, 1), size=(1999, authors))
    return np.vstack([np.ones((1, authors), dtype=int), drawn])


def by_bootstrap(audited: Arm, retain: Arm) -> bool:
    """Whether the percentile bootstrap interval of any excess lies above 0, 1,000 resamples of authors."""
    for name, leaks in audited.items():
        differences = _difference(leaks, retain[name])
        drawn = differences[np.random.default_rng(0).integers(len(differences), size=(1000, len(differences)))]
        if np.quantile(drawn.sum(axis=1), 0.025) > 0:
            return True
    return False


def _difference(ours: Bools, theirs: Bools) -> npt.NDArray[np.intp]:
    """By author: how many rows more leak."""
    return np.asarray(ours.sum(axis=1) - theirs.sum(axis=1))


METHODS: Mapping[str, Callable[[Arm, Arm], bool]] = {
    "t": by_t,
    "sign flips": by_sign_flips,
    "percentile bootstrap, uncorrected": by_bootstrap,
}
"""The first is the report's."""


def share_of_yes(
    setting: Setting,
    repeats: int,
    files: int,
    generator: np.random.Generator,
    excess: float = 0.0,
    leaking: int = 0,
) -> dict[str, float]:
    """Share of "yes" by method, of pairs of arms of which one leaks more in the first so many audits.

    Raises:
        SystemExit: Of one of the first pairs, which go through files, the report says something else than the tests.
    """
    found = dict.fromkeys(METHODS, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            audited = {
                name: draw(setting, generator, excess if place < leaking else 0.0)
                for place, name in enumerate((*AUDITS, *WHITE_BOX))
            }
            retain = {name: draw(setting, generator) for name in audited}
            said = {name: method(audited, retain) for name, method in METHODS.items()}
            for name, yes in said.items():
                found[name] += yes
            if number < files:
                word = headline(Path(folder) / "arms", audited, retain)
                if word != ("yes" if said["t"] else "no"):
                    raise SystemExit(f"the report says {word!r}, its tests {said['t']}: {setting}, excess {excess}")
    return {name: count / repeats for name, count in found.items()}


# Coverage.

Interval = tuple[float, float]


def _rate_interval(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
    leaks = draw(setting, generator)
    return setting.rate, inference.rate(_flat(leaks), _authors(leaks))[1:3]


def _leak_at_2_interval(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
    """Of four samples a row; the truth is the mean over authors of 1 - (1 - p)^2, known by the beta's moments."""
    probabilities = author_probabilities(setting, generator)
    leaked = generator.binomial(4, np.repeat(probabilities, ROWS))
    values = [rates.leak_at_k(4, int(count), 2) for count in leaked]
    square = setting.rate**2 + setting.correlation * setting.rate * (1 - setting.rate)
    authors = np.repeat(np.arange(setting.authors), ROWS).tolist()
    return 2 * setting.rate - square, inference.rate(values, authors)[1:3]


def _excess_interval(excess: float) -> Callable[[Setting, np.random.Generator], tuple[float, Interval]]:
    def drawn(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
        ours, theirs = draw(setting, generator, excess), draw(setting, generator)
        return excess, inference.excess(_flat(ours), _flat(theirs), _authors(ours))[1:3]

    return drawn


def _recovery_interval(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
    """Ten points more leak after relearning than before."""
    return 10.0, recovery.recovery_delta(_relearned(setting, generator, 0.1))[1:3]


def _recovery_excess_interval(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
    """The retain arm recovers nothing."""
    return 10.0, recovery.excess(_relearned(setting, generator, 0.1), _relearned(setting, generator, 0.0))[1:3]


def _relearned(setting: Setting, generator: np.random.Generator, excess: float) -> list[recovery.Change]:
    return _changes(draw(setting, generator), draw(setting, generator, excess))


def _mean_interval(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
    """Log-likelihood shifts: normal, with the correlation within authors; the rate plays no part."""
    authors = np.repeat(np.arange(setting.authors), ROWS)
    own = generator.normal(size=len(authors)) * math.sqrt(1 - setting.correlation)
    shared = generator.normal(size=setting.authors) * math.sqrt(setting.correlation)
    return 0.0, inference.mean((own + shared[authors]).tolist(), authors.tolist())[1:3]


def _utility_interval(setting: Setting, generator: np.random.Generator) -> tuple[float, Interval]:
    """Model utility: the setting's rate is that of right answers about the retain authors; 100 and 117 single rows."""
    probabilities = np.repeat(author_probabilities(setting, generator), 20)
    retain = [(generator.random(len(probabilities)) < probabilities).astype(float) for _ in range(3)]
    strata = [inference.Stratum(retain, np.repeat(np.arange(setting.authors), 20).tolist())]
    for mean, rows in ((0.5, 100), (0.6, 117)):
        answers = [(generator.random(rows) < mean).astype(float), *generator.beta(2 * mean, 2 - 2 * mean, (2, rows))]
        strata.append(inference.Stratum(answers, range(rows)))
    return 9 / (3 / setting.rate + 3 / 0.5 + 3 / 0.6), inference.harmonic_mean(strata)[1:3]


INTERVALS: Mapping[str, Callable[[Setting, np.random.Generator], tuple[float, Interval]]] = {
    "leak rate": _rate_interval,
    "leak@2 of 4 samples": _leak_at_2_interval,
    "excess, none": _excess_interval(0.0),
    **{f"excess of {100 * excess:.0f} points": _excess_interval(excess) for excess in EXCESSES},
    "relearning, 10 points recovered": _recovery_interval,
    "relearning, excess of 10 points": _recovery_excess_interval,
    "log-likelihood shift": _mean_interval,
    "model utility": _utility_interval,
}


def coverage(kind: str, setting: Setting, repeats: int, generator: np.random.Generator) -> float:
    """Share of the intervals that hold the truth; where there is none, because no answer is right, it says nothing."""
    held = given = 0
    for _ in range(repeats):
        truth, (low, high) = INTERVALS[kind](setting, generator)
        if not math.isnan(low):
            given += 1
            held += low <= truth <= high
    return held / given


def zero_coverage(authors: int, repeats: int, generator: np.random.Generator) -> float:
    """How often the upper limit holds if each author leaks in all rows or in none, a little above the limit for none.

    No correlation, and no rate, is worse for the limit of a rate of zero leaks.
    """
    rate = inference.extreme_bound(authors) * 1.001
    missed = 0
    for _ in range(repeats):
        leaks = np.repeat(generator.random((authors, 1)) < rate, ROWS, axis=1)
        missed += inference.rate(_flat(leaks), _authors(leaks)).high < rate
    return 1 - missed / repeats


# What is run, and how it is shown.


def measure(repeats: int, files: int) -> dict[str, Any]:
    """Everything: so many pairs or draws for each figure, of which some go through files."""
    generator = np.random.default_rng(20261128)
    settings = [Setting(*values) for values in itertools.product(AUTHORS, RATES, (*CORRELATIONS, BEYOND))]
    powers = [
        (setting, excess, leaking)
        for setting in settings
        if setting.correlation == inference.ASSUMED_CORRELATION
        for excess in EXCESSES
        for leaking in (1, len(AUDITS) + len(WHITE_BOX))
    ]
    return {
        "repeats": repeats,
        "files": files,
        "false yes": [
            {**setting._asdict(), "share": share_of_yes(setting, repeats, files, generator)}
            for setting in tqdm(settings, desc="false yes")
        ],
        "power": [
            {
                **setting._asdict(),
                "excess": excess,
                "leaking": leaking,
                "share": share_of_yes(setting, repeats // 4, files // 4, generator, excess, leaking),
            }
            for setting, excess, leaking in tqdm(powers, desc="power")
        ],
        "coverage": [
            {"kind": kind, **setting._asdict(), "share": coverage(kind, setting, repeats, generator)}
            for kind in tqdm(INTERVALS, desc="coverage")
            for setting in settings
        ],
        "zero leaks": [
            {
                "authors": authors,
                "bound": inference.extreme_bound(authors),
                "share": zero_coverage(authors, 5 * repeats, generator),
            }
            for authors in AUTHORS
        ],
    }


def document_text(found: Mapping[str, Any]) -> str:
    """The tables for the document."""
    audits = len(AUDITS) + len(WHITE_BOX)
    lines = [
        f'{found["date and machine"]}. {found["repeats"]:,} pairs of arms for each share of false "yes" and '
        f"{found['repeats'] // 4:,} for each power; {found['files']} and {found['files'] // 4} of them through files; "
        f"{found['repeats']:,} draws for each coverage. {audits} audits, {ROWS} rows an author.",
        "",
        'False "yes", by the correlation of leaks within an author; in parentheses by sign flips, and by percentile '
        "bootstraps without a correction:",
        "",
        f"| authors | leak rate | {' | '.join(f'{value:g}' for value in (*CORRELATIONS, BEYOND))} |",
        f"|---:|---:|{'---:|' * (len(CORRELATIONS) + 1)}",
    ]
    for authors, rate in itertools.product(AUTHORS, RATES):
        own = [each["share"] for each in found["false yes"] if (each["authors"], each["rate"]) == (authors, rate)]
        cells = []
        for shares in own:
            ours, *others = (f"{shares[name]:.1%}" for name in METHODS)
            cells.append(f"{ours} ({', '.join(others)})")
        lines.append(f"| {authors} | {rate:.0%} | {' | '.join(cells)} |")
    lines += [
        "",
        f"At most {worst(found):.1%} up to a correlation of {max(CORRELATIONS):g}.",
        "",
        f'Power, the share of "yes" (correlation {inference.ASSUMED_CORRELATION:g}), if the excess is in one of the '
        f"{audits} audits, and if it is in all; in parentheses by sign flips:",
        "",
        f"| authors | leak rate of retain | {' | '.join(f'{100 * e:.0f} points, one | all' for e in EXCESSES)} |",
        f"|---:|---:|{'---:|' * (2 * len(EXCESSES))}",
    ]
    for authors, rate in itertools.product(AUTHORS, RATES):
        own = [each["share"] for each in found["power"] if (each["authors"], each["rate"]) == (authors, rate)]
        cells = [f"{shares['t']:.0%} ({shares['sign flips']:.0%})" for shares in own]
        lines.append(f"| {authors} | {rate:.0%} | {' | '.join(cells)} |")
    lines += [
        "",
        "Coverage of the 95 % intervals: the lowest of both leak rates and all correlations up to "
        f"{max(CORRELATIONS):g}, and in parentheses at {BEYOND:g}:",
        "",
        f"| interval | {' | '.join(f'{authors} authors' for authors in AUTHORS)} |",
        f"|---|{'---:|' * len(AUTHORS)}",
    ]
    for kind in INTERVALS:
        cells = []
        for authors in AUTHORS:
            own = [each for each in found["coverage"] if (each["kind"], each["authors"]) == (kind, authors)]
            inside, outside = (
                min(each["share"] for each in own if (each["correlation"] == BEYOND) is beyond)
                for beyond in (False, True)
            )
            cells.append(f"{inside:.3f} ({outside:.3f})")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    zero = [f"{each['share']:.3f} (at most {each['bound']:.1%})" for each in found["zero leaks"]]
    lines.append(f"| upper limit where nothing leaks, worst case | {' | '.join(zero)} |")
    return "\n".join(lines)


def worst(found: Mapping[str, Any]) -> float:
    """The largest share of false "yes" of what is promised."""
    return max(float(each["share"]["t"]) for each in found["false yes"] if each["correlation"] != BEYOND)


def kept(found: Mapping[str, Any]) -> bool:
    """Whether what is promised holds."""
    return (
        worst(found) <= MOST_FALSE
        and min(each["share"] for each in found["coverage"] if each["correlation"] != BEYOND) >= LEAST_COVERAGE
        and min(each["share"] for each in found["zero leaks"]) >= LEAST_COVERAGE
    )


def main() -> int:
    """Measure and write; the exit status is 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, metavar="N", help="pairs of arms (default: %(default)s)")
    parser.add_argument("--files", type=int, default=40, metavar="N", help="of them through files (%(default)s)")
    args = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    found = {
        "date and machine": f"{date.today().isoformat()}, {machine}, {packages}",
        **measure(args.repeats, args.files),
    }
    files.write_text(ROOT / "benchmarks" / "verdict_level.json", json.dumps(found, indent=1) + "\n")
    show("verdict-level", document_text(found))
    print(document_text(found))
    return 0 if kept(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
