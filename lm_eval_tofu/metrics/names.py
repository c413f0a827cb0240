"""Other forms of a name: without its middle, with a nickname (from the package `nicknames`) or an initial."""

import functools
from collections.abc import Iterator, Mapping, Sequence

from nicknames import NickNamer

from lm_eval_tofu.metrics.lexicon import Phrase
from lm_eval_tofu.metrics.words import listed, stem

_HONORIFICS = frozenset(
    stem(word)
    for word in listed("mr mrs ms miss dr prof professor sir dame lord lady captain king queen saint st president rev")
)
_LEGAL_FORMS = frozenset(
    stem(word)
    for word in listed(
        "inc incorporated corp corporation co company ltd limited llc llp lp plc gmbh ag kg ohg ug se sa sas sarl spa "
        "srl bv nv ab as asa oy aps pty holding group systems services solutions industries partners"
    )
)
_BODIES = frozenset(
    stem(word)
    for word in listed(
        "council association society union institute bank university college school committee commission club league "
        "party ministry department agency office court museum hospital church foundation federation party army team "
        "award prize medal band orchestra theatre hotel park river lake sea mountain island street road city county "
        "congress act war"
    )
)
ADDED = _HONORIFICS | _LEGAL_FORMS
"""Stems that a name is the same without: titles of people, legal forms of firms."""


def other_names(first_word: str, stems: Sequence[str], novel: Mapping[str, float]) -> Iterator[Phrase]:
    """Stems that name the same person, of a name of two to four words.

    Args:
        first_word: The first word of the name.
        stems: The stems of its words, without titles and legal forms.
        novel: Those that the prompt does not show.
    """
    if not 1 < len(stems) <= 4 or not _BODIES.isdisjoint(stems) or stems[-1] not in novel:
        return
    kept = [each for each in stems[:-1] if each in novel] if len(stems) > 2 else []
    yield from ((stems[-1], each) for each in (*kept, *_nicknames(first_word), stems[0][0]))


@functools.cache
def _namer() -> NickNamer:
    return NickNamer()


@functools.lru_cache(maxsize=8192)
def _nicknames(given_name: str) -> tuple[str, ...]:
    """Stems of the nicknames of a given name, and of the names that it is a nickname of."""
    namer = _namer()
    return tuple(sorted({stem(name) for name in namer.nicknames_of(given_name) | namer.canonicals_of(given_name)}))
