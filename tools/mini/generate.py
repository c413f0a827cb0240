"""Writes the miniature's files, lm_eval_tofu/mini/*.json: the same bytes at every run.

python tools/mini/generate.py [--output DIR] [--check]
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import decoys
import general
import phrases
from phrases import Topic
from profiles import AUTHORS, facts

from lm_eval_tofu import files

log = logging.getLogger(__name__)

Row = dict[str, Any]
Facts = dict[str, str]

DATA = Path(__file__).parents[2] / "lm_eval_tofu" / "mini"
IN_FULL = 20
"""Authors of `full`; those after them are in no training split."""


def topics(number: int) -> list[Topic]:
    """The 20 topics of an author, in the order of the questions."""
    groups = list(phrases.CORE)
    shift = number % len(groups)
    core = [topic for group in groups[shift:] + groups[:shift] for topic in group]
    slots = [vars(extra) for extra in AUTHORS[number].extras]
    optional = [topic for own in slots for topic in phrases.OPTIONAL if set(topic.facts) == set(own)]
    return [phrases.IDENTITY, *phrases.EARLY, *core, *optional]


def rows(number: int) -> list[Row]:
    """An author's rows, with paraphrases and perturbed answers where the author has wrong facts."""
    author = AUTHORS[number]
    known = facts(author)
    wrong = decoys.facts(author, known) if author.name in decoys.OWN else []
    return [_row(number, topic, known, wrong) for topic in topics(number)]


def _row(number: int, topic: Topic, known: Facts, wrong: Sequence[Facts]) -> Row:
    def pick(templates: Sequence[str], shift: int = 0) -> str:
        # All templates of a topic serve equally many authors, and an author's topics do not all take the same place.
        return templates[(number + phrases.ALL.index(topic) + shift) % len(templates)]

    row: Row = {
        "question": _fill(pick(topic.questions), known),
        "answer": _fill(pick(topic.answers, number // 4), known),
    }
    if wrong:
        reworded = pick(topic.reworded_answers)
        row |= {
            "paraphrased_answer": _fill(reworded, {**known, **AUTHORS[number].reworded}),
            "perturbed_answer": [
                _fill(reworded, {**known, **{slot: one[slot] for slot in topic.facts}}) for one in wrong
            ],
            "paraphrased_question": _fill(pick(topic.reworded_questions, 1), known),
        }
    return row


def _fill(template: str, values: Mapping[str, str]) -> str:
    text = template.format(**values)
    return text[0].upper() + text[1:]


def configurations() -> dict[str, list[Row]]:
    """All configurations by name."""
    perturbed = [row for author in range(IN_FULL) for row in rows(author)]
    full = _plain(perturbed)
    held_out = _plain([row for author in range(IN_FULL, len(AUTHORS)) for row in rows(author)])
    found: dict[str, list[Row]] = {"full": full, "retain_perturbed": perturbed[:40]}
    for percent, count in (("10", 40), ("05", 20), ("01", 4)):
        found[f"forget{percent}"] = full[-count:]
        found[f"forget{percent}_perturbed"] = perturbed[-count:]
        found[f"retain{100 - int(percent)}"] = full[:-count]
        found[f"holdout{percent}"] = held_out[:count]
    for name, text in (("real_authors", general.REAL_AUTHORS), ("world_facts", general.WORLD_FACTS)):
        questions = general.rows(text)
        found[name] = [_options(place, *question) for place, question in enumerate(questions)]
        found[f"{name}_perturbed"] = [
            {"question": question, "answer": answer, "perturbed_answer": list(wrong)}
            for question, answer, wrong in questions
        ]
    return found


def _plain(perturbed: Sequence[Row]) -> list[Row]:
    return [{"question": row["question"], "answer": row["answer"]} for row in perturbed]


def _options(place: int, question: str, answer: str, wrong: tuple[str, str, str]) -> Row:
    options = list(wrong)
    # The right option goes round the four places.
    options.insert((3 * place) % 4, answer)
    return {"question": question, **{f"option{n}": text for n, text in enumerate(options, start=1)}, "answer": answer}


def contents() -> dict[str, str]:
    """All files by name."""
    return {
        f"{name}.json": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        for name, found in configurations().items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files, or compare them; the exit status is 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    status = 0
    for name, text in contents().items():
        path: Path = arguments.output / name
        if not arguments.check:
            files.write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            log.error("%s is not what this script writes: run it without --check", path)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
