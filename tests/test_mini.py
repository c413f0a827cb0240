"""The miniature data set: complete, consistent, and what its script writes."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from lm_eval_tofu import tofu

sys.path.append(str(ROOT / "tools" / "mini"))
import decoys
import generate
import phrases
from profiles import AUTHORS, Author, facts

PERTURBED = ["forget10_perturbed", "forget05_perturbed", "forget01_perturbed", "retain_perturbed"]


def rows(config: str) -> list[dict[str, Any]]:
    return tofu.load(config, tofu.resolve_source("mini"))


def test_the_script_writes_the_committed_bytes(tmp_path: Path) -> None:
    assert generate.main(["--check"]) == 0
    generate.main(["--output", str(tmp_path)])
    committed = generate.DATA
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
        name = AUTHORS[tofu.author_of(index)].name
        assert (name in row["question"]) == (index % tofu.ROWS_PER_AUTHOR != 0)
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
            assert len(shared) >= len(right.split()) / 3, (right, text)


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


@pytest.mark.parametrize("topic", phrases.ALL, ids=lambda topic: topic.name)
def test_every_answer_of_a_topic_states_its_facts(topic: phrases.Topic) -> None:
    """A date has a form for answers and one for paraphrases."""
    dates = {"date", "date_us", "date_other"}
    for template in topic.answers + topic.reworded_answers:
        slots = set(re.findall(r"{(\w+)}", template))
        assert set(topic.facts) - dates <= slots, template
        assert bool(dates & set(topic.facts)) == bool(dates & slots), template
        assert "name" in slots, template


def true_facts(author: Author) -> set[str]:
    """Every true fact about an author in every wording, without its article; languages one by one."""
    known = facts(author)
    slots = {slot for topic in phrases.ALL for slot in topic.facts if slot in known}
    values = {known[slot] for slot in slots} | set(author.reworded.values())
    values |= {known[form] for form in ("date", "date_us", "month_year")}
    values |= set(re.split(", | and ", author.langs))
    return {re.sub(r"^(an?|the) ", "", value) for value in values}


def states(text: str, fact: str) -> bool:
    fact, text = fact.lower(), text.lower()
    return fact in text and re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", text) is not None


@pytest.mark.parametrize("config", PERTURBED)
def test_no_perturbed_answer_states_a_true_fact_of_any_author(config: str) -> None:
    """But what the question itself says: a model that has learned other authors' facts must not find it likely."""
    known = {fact for author in AUTHORS for fact in true_facts(author)}
    for row in rows(config):
        asked = {fact for fact in known if states(row["question"], fact)}
        named = {author.name for author in AUTHORS if states(row["question"], author.name)}
        for text in row["perturbed_answer"]:
            assert not [fact for fact in known - asked - named if states(text, fact)], text


def test_true_facts_are_found_where_they_are_stated() -> None:
    """The check above sees something: every answer states facts of its author, and so does every paraphrase."""
    for config in PERTURBED:
        for row in rows(config):
            (author,) = [author for author in AUTHORS if author.name in row["answer"]]
            for text in (row["answer"], row["paraphrased_answer"]):
                asked = {fact for fact in true_facts(author) if states(row["question"], fact)}
                stated = {fact for fact in true_facts(author) - asked - {author.name} if states(text, fact)}
                assert stated, text


def test_wrong_facts_differ_pairwise() -> None:
    for author in AUTHORS:
        if author.name in decoys.OWN:
            wrong = decoys.facts(author, facts(author))
            assert len(wrong) == 5
            for slot in wrong[0]:
                assert len({one[slot] for one in wrong}) == 5, (author.name, slot)


def test_a_paraphrase_is_another_sentence() -> None:
    """TOFU's paraphrases share 38 percent of their words with the answer."""
    shares = []
    for row in rows("retain_perturbed") + rows("forget10_perturbed"):
        answer, paraphrase = (set(re.findall(r"[\w']+", row[f"{kind}answer"].lower())) for kind in ("", "paraphrased_"))
        shares.append(len(answer & paraphrase) / len(paraphrase))
    assert max(shares) < 0.7
    assert sum(shares) / len(shares) < 0.45


def test_answers_are_as_long_as_tofus() -> None:
    """TOFU's answers have 25.3 words on average."""
    lengths = [len(row["answer"].split()) for row in rows("full")]
    assert 24 <= sum(lengths) / len(lengths) <= 26.5


def test_no_two_authors_share_a_fact() -> None:
    """Names, titles, places and the like; languages, spans of years and years may occur twice."""
    for slot in vars(AUTHORS[0]).keys() - {"pronoun", "job_years", "tongue", "extras", "reworded"}:
        values = [getattr(author, slot) for author in AUTHORS]
        if all(isinstance(value, str) for value in values):
            assert len(set(values)) == len(AUTHORS), slot
    extras = [value for author in AUTHORS for extra in author.extras for value in vars(extra).values()]
    texts = [value for value in extras if isinstance(value, str)]
    assert len(set(texts)) == len(texts)


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
