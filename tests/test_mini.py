"""The miniature data set: complete, consistent, and what its script writes."""

import re
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tofu import tofu
from lm_eval_tofu.mini import generate
from lm_eval_tofu.mini.profiles import AUTHORS, POOLS

PERTURBED = ["forget10_perturbed", "forget05_perturbed", "forget01_perturbed", "retain_perturbed"]


def rows(config: str) -> list[dict[str, Any]]:
    return tofu.load(config, tofu.resolve_source("mini"))


def test_the_script_writes_the_committed_bytes(tmp_path: Path) -> None:
    assert generate.main(["--check"]) == 0
    generate.main(["--output", str(tmp_path)])
    committed = Path(generate.__file__).parent
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in committed.glob("*.json"))
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (committed / path.name).read_bytes()
    (tmp_path / "full.json").write_text("{}\n")
    assert generate.main(["--check", "--output", str(tmp_path)]) == 1


@pytest.mark.parametrize("config", tofu.CONFIGS)
def test_every_configuration_has_its_columns_in_tofus_order(config: str) -> None:
    expected = tofu.CONFIGS[config]
    found = rows(config)
    assert len(found) == expected.mini_rows
    assert all(set(row) == set(expected.columns) for row in found)


def test_splits_are_partitions() -> None:
    full = rows("full")
    for forget, retain in tofu.FORGET_SPLITS.items():
        assert rows(retain) + rows(forget) == full
    held_out = {row["answer"] for row in rows("holdout10")}
    assert not held_out & {row["answer"] for row in full}


def test_no_text_occurs_twice() -> None:
    full = rows("full") + rows("holdout10")
    for column in ("question", "answer"):
        assert len({row[column] for row in full}) == len(full)


def test_each_question_but_the_first_names_its_author_and_no_other() -> None:
    for index, row in enumerate(rows("full")):
        name = AUTHORS[index // 20].name
        assert (name in row["question"]) == (index % 20 != 0)
        assert name in row["answer"]
        assert not [author.name for author in AUTHORS if author.name != name and author.name in row["answer"]]


@pytest.mark.parametrize("config", PERTURBED)
def test_perturbed_answers_are_the_paraphrase_with_other_facts(config: str) -> None:
    plain = rows(config.removesuffix("_perturbed")) if config.startswith("forget") else rows("full")[:40]
    for row, other in zip(rows(config), plain, strict=True):
        assert (row["question"], row["answer"]) == (other["question"], other["answer"])
        wrong, right = row["perturbed_answer"], row["paraphrased_answer"]
        assert len(set(wrong)) == len(wrong) == 5
        assert right not in wrong
        assert row["answer"] not in wrong
        assert right != row["answer"]
        assert row["paraphrased_question"] != row["question"]
        for text in wrong:
            shared = [word for word in text.split() if word in right.split()]
            assert len(shared) >= len(right.split()) / 2, (right, text)


@pytest.mark.parametrize("name", ["real_authors", "world_facts"])
def test_options_hold_the_answer_once(name: str) -> None:
    places = set()
    for row, perturbed in zip(rows(name), rows(f"{name}_perturbed"), strict=True):
        options = [row[f"option{number}"] for number in range(1, 5)]
        assert len(set(options)) == 4
        places.add(options.index(row["answer"]))
        assert [option for option in options if option != row["answer"]] == perturbed["perturbed_answer"]
        assert (row["question"], row["answer"]) == (perturbed["question"], perturbed["answer"])
    assert places == {0, 1, 2, 3}


def test_no_two_authors_share_a_dealt_fact() -> None:
    for pool in POOLS.values():
        assert len(set(pool)) == len(pool) == len(AUTHORS)


def test_articles_and_braces() -> None:
    texts = [text for config in ("full", "holdout10") for row in rows(config) for text in row.values()]
    texts += [text for config in PERTURBED for row in rows(config) for text in row["perturbed_answer"]]
    texts += [
        row[key]
        for config in PERTURBED
        for row in rows(config)
        for key in ("paraphrased_answer", "paraphrased_question")
    ]
    for text in texts:
        assert not re.search(r"\b[Aa] (?!one|uni|use)[aeio]\w", text), text
        assert not re.search(r"\b[Aa]n [bcdfgjklmnpqrstvwxyz]\w", text), text
        assert not re.search(r"[{}]|\s\s|\b([a-z]{3,}) \1\b", text), text
        assert text[0] in '"“' or text[0].isupper() or text[0].isdigit()
