"""The words that the leak scorer knows: synonyms, occupations, genres, places, and what says nothing.

They stand in `lexicon.txt`, written for this package, one entry a line.
"""

import functools
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from lm_eval_tofu.metrics.words import fold, singular, stem, tokens

Phrase = tuple[str, ...]
"""Words or stems that go together."""

LIST_FILE = Path(__file__).with_name("lexicon.txt")


@dataclass(frozen=True)
class Lexicon:
    """All lists, as stems except where said otherwise.

    Attributes:
        synonyms: Stem to the stems that may stand for it, without itself.
        occupations: A phrase in the singular (`words.singular`) to the stems of all phrases that name the same
            occupation, itself included: a "novelist" is an occupation, a "novel" is none.
        genres: The same for genres.
        places: The same for places; a demonym names its country.
        place_stems: Stem to the stems of all phrases that name the same place, for names of one word.
        small: Stems of grammatical words, of gender, pronouns, yes and no.
        frame: Stems of what any answer about a writer says.
        boilerplate: Stems of praise and filler.
        longest: Length of the longest phrase.
        by_first_word: First word to the phrases that begin with it, the longest first: (phrase, kind, aliases).
        units: Name of a unit to what it measures and how many base units one is.
        currencies: Name of a currency to the codes that it may mean, joined by commas.
        choices: Stem of a word of a closed class ("male") to the class's words.
    """

    synonyms: dict[str, frozenset[str]]
    occupations: dict[Phrase, tuple[Phrase, ...]]
    genres: dict[Phrase, tuple[Phrase, ...]]
    places: dict[Phrase, tuple[Phrase, ...]]
    place_stems: dict[str, tuple[Phrase, ...]]
    small: frozenset[str]
    frame: frozenset[str]
    boilerplate: frozenset[str]
    longest: int
    by_first_word: dict[str, tuple[tuple[Phrase, str, tuple[Phrase, ...]], ...]]
    units: dict[str, tuple[str, Decimal]]
    currencies: dict[str, str]
    choices: dict[str, frozenset[str]]


@functools.cache
def lexicon() -> Lexicon:
    """Read the lists, once."""
    sections = _sections()
    synonyms: dict[str, set[str]] = {}
    for entry in sections["synonyms"]:
        group = {stem(word) for word in entry.split()}
        for word in group:
            synonyms.setdefault(word, set()).update(group - {word})
    occupations, genres, places = (_phrases(sections[name]) for name in ("occupations", "genres", "places"))
    return Lexicon(
        synonyms={word: frozenset(others) for word, others in synonyms.items()},
        occupations=occupations,
        genres=genres,
        places=places,
        place_stems={aliases[0][0]: aliases for aliases in places.values() if len(aliases[0]) == 1},
        small=_words([*sections["stop"], *sections["closed"]]),
        frame=_words(sections["frame"]),
        boilerplate=_words(sections["boilerplate"]),
        longest=max(len(phrase) for table in (occupations, genres, places) for phrase in table),
        units={
            name: (dimension, Decimal(factor))
            for dimension, factor, *names in map(str.split, sections["units"])
            for name in _names(names)
        },
        currencies={name: codes for codes, *names in map(str.split, sections["currencies"]) for name in _names(names)},
        choices={
            word: group
            for entry in sections["choices"]
            for group in [frozenset(map(stem, entry.split()))]
            for word in group
        },
        by_first_word=_by_first_word(
            {"place": places, "occupation": occupations, "genre": genres, "term": _phrases(sections["terms"])}
        ),
    )


def _sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    name = ""
    for line in LIST_FILE.read_text(encoding="utf-8").splitlines():
        entry = line.partition("#")[0].strip()
        if entry.startswith("["):
            name = entry.strip("[]")
        elif entry:
            sections.setdefault(name, []).append(entry)
    return sections


def _names(names: list[str]) -> list[str]:
    return [fold(name.replace("_", " ")) for name in names]


def _phrases(entries: list[str]) -> dict[Phrase, tuple[Phrase, ...]]:
    table: dict[Phrase, tuple[Phrase, ...]] = {}
    for entry in entries:
        names = [tokens(fold(name.replace("_", " "))) for name in entry.split()]
        stems = [tuple(map(stem, name)) for name in names]
        for name, own in zip(names, stems, strict=True):
            key = tuple(map(singular, name))
            table[key] = tuple(dict.fromkeys((own, *table.get(key, ()), *stems)))
    return table


def _by_first_word(
    tables: dict[str, dict[Phrase, tuple[Phrase, ...]]],
) -> dict[str, tuple[tuple[Phrase, str, tuple[Phrase, ...]], ...]]:
    index: dict[str, list[tuple[Phrase, str, tuple[Phrase, ...]]]] = {}
    for kind, table in tables.items():
        for phrase, aliases in table.items():
            index.setdefault(phrase[0], []).append((phrase, kind, aliases))
    return {word: tuple(sorted(entries, key=lambda entry: -len(entry[0]))) for word, entries in index.items()}


def _words(entries: list[str]) -> frozenset[str]:
    return frozenset(stem(token) for entry in entries for token in tokens(fold(entry)))
