"""Text to comparable words: folding, tokens, stems.

Two words are the same here when their stems are. The stemmer is ours and coarse on purpose: it removes inflection and
the common derivational endings, so that "explore", "explored" and "exploration" meet.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import TypeVar


def listed(words: str) -> list[str]:
    """A list that reads as a line of words."""
    return words.split()


_Token = TypeVar("_Token", str, bytes)

_PUNCTUATION = str.maketrans(dict.fromkeys("‘’ʼ`", "'") | dict.fromkeys("“”«»", '"') | dict.fromkeys("‐‑‒–—", "-"))
_VULGAR = {ord(mark): f" {above}/{below}" for mark, above, below in zip("½⅓⅔¼¾⅛", "112131", "233448", strict=True)}
_PUNCTUATION |= _VULGAR | str.maketrans(
    {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "º": "°", "ł": "l", "đ": "d", "ı": "i", "Ø": "O", "Ł": "L"}
)
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # what colours a terminal
_DIACRITICS = re.compile("[\u0300-\u036f]")
_FIGURES = r"\d+(?:,\d{3})*(?:\.\d+)?(?:st|nd|rd|th|s)?"
_TOKEN = re.compile(rf"[^\W\d_]+(?:'[^\W\d_]+)*|{_FIGURES}")
_ASCII_TOKEN = re.compile(rf"[a-z]+(?:'[a-z]+)*|{_FIGURES}")  # the same, in half the time
# Letters and quotes stay, digits become one digit, all else a space.
_LETTERS = bytes(
    code if chr(code).isalpha() or code == ord("'") else ord("0") if chr(code).isdecimal() else ord(" ")
    for code in range(128)
).ljust(256)
_SENTENCE_TOKEN = re.compile(_TOKEN.pattern + r"|[.,;:!?()\n]")
_ASCII_SENTENCE_TOKEN = re.compile(_ASCII_TOKEN.pattern + r"|[.,;:!?()\n]")

_UNITS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
"""English number words below a hundred and their values."""
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_TENS_WORDS = frozenset(_TENS)
_COMPOUNDING = frozenset(("hundred", *_SCALES, *_TENS))
"""Words without which no number takes several words."""

_ORDINALS = listed(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth"
)
ORDINAL_WORDS = {word: value for value, word in enumerate(_ORDINALS, start=1)} | {
    f"{word[:-1]}ieth": 10 * value for value, word in enumerate(_TENS, start=2)
}
"""English ordinals of one word below a hundredth and their values."""

NEGATIONS = frozenset(listed("not no non never none nor neither without cannot"))
"""Words that negate; no other word has one of them for its stem."""

CLAUSE_MARKS = frozenset(".,;:!?()\n")

_NUMBER_STEMS = {word: f"#{value}" for word, value in (NUMBER_WORDS | {"hundred": 100} | _SCALES).items()} | {
    word: f"{value}th" for word, value in ORDINAL_WORDS.items()
}
_COMPOUNDING_STEMS = frozenset(_NUMBER_STEMS[word] for word in _COMPOUNDING)

_IRREGULAR = dict(
    pair.split(":")
    for pair in listed(
        "wrote:write written:write began:begin begun:begin became:become drew:draw drawn:draw grew:grow grown:grow "
        "knew:know known:know gave:give given:give took:take taken:take saw:see seen:see won:win made:make kept:keep "
        "held:hold found:find told:tell thought:think brought:bring taught:teach caught:catch bought:buy sold:sell "
        "spent:spend wove:weave woven:weave chose:choose chosen:choose spoke:speak spoken:speak led:lead met:meet "
        "men:man women:woman children:child lives:life wives:wife wolves:wolf werewolves:werewolf people:person "
        "heroes:hero built:build felt:feel left:leave lost:lose rose:rise risen:rise shown:show sang:sing sung:sing "
        "went:go gone:go came:come got:get had:have has:have did:do done:do was:be were:be is:be are:be been:be "
        "being:be fought:fight sought:seek meant:mean understood:understand overcame:overcome died:die dying:die "
        "series:series species:species news:news teeth:tooth feet:foot mice:mouse theatre:theater colour:color "
        "honour:honor humour:humor favourite:favorite centre:center behaviour:behavior labour:labor flavour:flavor "
        "neighbour:neighbor jewellery:jewelry grey:gray mum:mother analyse:analyze realise:realize used:use using:use "
        "said:say says:say travelled:travel travelling:travel fungi:fungus fungal:fungus cacti:cactus alumni:alumnus "
        "learnt:learn burnt:burn dreamt:dream spelt:spell "
        "bacteria:bacterium bacterial:bacterium criteria:criterion phenomena:phenomenon hypotheses:hypothesis "
        "crises:crisis"
    )
)

_BASE_FORMS = frozenset(_IRREGULAR.values())
_DERIVED = {"writer": "write", "evolution": "evolve"}  # what the endings below would not bring together

# Endings, each with the fewest letters that must remain, without the silent `e` ("receive", "receiving"). The longest
# that fits goes; the search then starts again.
_COMMON_ENDINGS = listed(
    "ization isation ation ition ativ itiv atory ator ically ability ibility fulness ousness iveness ement ment ness "
    "anc enc ancy ency abl ibl ify if ical ial ally ity ist ism ian iv iz is ous ion ic al ly at ful less ship hood"
)
_ENDINGS = [
    *((ending, 4) for ending in _COMMON_ENDINGS),
    *((ending, 5) for ending in ("ent", "ant", "er", "or", "ery")),
    *(("e", 3), ("y", 3), ("i", 4)),
]
_ENDINGS.sort(key=lambda pair: -len(pair[0]))
_BY_LAST_LETTER = {
    letter: tuple((ending, rest) for ending, rest in _ENDINGS if ending[-1] == letter)
    for letter in {ending[-1] for ending, _ in _ENDINGS}
}


def fold(text: str) -> str:
    """Lower case, straight quotes and hyphens, no diacritics: what tokens are taken from.

    Letters of other scripts stay as they are.
    """
    return straighten(text).lower()


def straighten(text: str) -> str:
    """As `fold`, in the given case; places in the one are places in the other."""
    if "\x1b" in text:
        text = _ESCAPE.sub(lambda match: " " * len(match[0]), text)
    if text.isascii():
        return text
    return _DIACRITICS.sub("", unicodedata.normalize("NFKD", text.translate(_PUNCTUATION)))


def places(text: str) -> list[int]:
    """Where each character of the folded text stands in the text itself, and the text's length at the end."""
    if text.isascii():
        return list(range(len(text) + 1))
    return [place for place, char in enumerate(text) for _ in fold(char)] + [len(text)]


def tokens(folded: str) -> list[str]:
    """Words and numbers of a folded text; hyphens, underscores, control characters and punctuation separate them."""
    return (_ASCII_TOKEN if folded.isascii() else _TOKEN).findall(folded)


def token_spans(folded: str) -> list[tuple[str, int, int]]:
    """As `tokens`, each with where it stands: (token, start, end); a number of several words is one, in figures."""
    return [span for span in sentence_spans(folded) if span[0] not in CLAUSE_MARKS]


def sentence_tokens(folded: str) -> list[str]:
    """As `tokens`, with the marks that end a clause; a number of several words is one token, in figures."""
    found = (_ASCII_SENTENCE_TOKEN if folded.isascii() else _SENTENCE_TOKEN).findall(folded)
    return found if _COMPOUNDING.isdisjoint(found) else [token for token, _, _ in _with_compounds(found)]


def sentence_spans(folded: str) -> list[tuple[str, int, int]]:
    """As `sentence_tokens`, each with where it stands: (token, start, end)."""
    spans = [(match[0], match.start(), match.end()) for match in _SENTENCE_TOKEN.finditer(folded)]
    found = [token for token, _, _ in spans]
    if _COMPOUNDING.isdisjoint(found):
        return spans
    return [(token, spans[first][1], spans[last][2]) for token, first, last in _with_compounds(found)]


def stems(folded: str) -> set[str]:
    """The stems of a folded text, numbers as values, in figures or words ("twenty-five", "2 million")."""
    return set(stem_list(folded))


def stem_line(folded: str) -> str:
    """The stems of a folded text in its order, with a space before, between and after: to look for passages in."""
    return f" {' '.join(stem_list(folded))} "


def stem_list(folded: str) -> list[str]:
    """As `stems`, in the order of the text."""
    found = list(filter(None, _stems_in_order(folded)))  # of a lone quote it is empty
    if _COMPOUNDING_STEMS.isdisjoint(found):
        return found
    return [_STEMS[token] for token in sentence_tokens(folded) if token not in CLAUSE_MARKS]


def _stems_in_order(folded: str) -> Iterator[str]:
    """Stems token by token."""
    if folded.isascii():
        letters = folded.encode().translate(_LETTERS)
        if b"0" not in letters:  # nearly every response: no pattern is needed
            return map(_BYTE_STEMS.__getitem__, letters.split())
    return map(_STEMS.__getitem__, tokens(folded))


def merged_numbers(found: Sequence[str], place: int) -> tuple[int, Decimal | None]:
    """The number, in figures or words, that begins at a place in a list of tokens, and where it ends."""
    end, number = _number(found, place)
    return (end, number) if end > place else (place, None)


def practitioner(field: str) -> str:
    """The stem of who practises what a stem names: `musici` of `music`, `politici` of `polit`."""
    return field + ("i" if field.endswith("ic") else "ici")


def stem(token: str) -> str:
    """The stem of one folded token; numbers in figures or words become `#` and their value, ordinals value and `th`."""
    return _STEMS[token]


class _Forms(dict[_Token, str]):
    """Forms of tokens as they are asked for: a look-up costs a tenth of a cached call."""

    def __init__(self, form: Callable[[_Token], str]) -> None:
        super().__init__()
        self._form: Callable[[_Token], str] = form

    def __missing__(self, token: _Token) -> str:
        if len(self) >= 1 << 16:  # whatever a model writes, memory stays bounded
            self.clear()
        self[token] = found = self._form(token)
        return found


def _byte_stem(token: bytes) -> str:
    """For words cut out of ASCII bytes, to which quotes may still stick."""
    word = token.strip(b"'").decode()
    return _STEMS[word] if word else ""


def _stem(token: str) -> str:
    if len(token) > 40:
        return token[:40]
    if token[0].isdigit():
        digits = token.replace(",", "")
        if digits.endswith(("st", "nd", "rd", "th")):
            return digits[:-2] + "th"
        whole, _, fraction = digits.partition(".")
        if (whole + fraction).isdecimal():
            fraction = fraction.rstrip("0")
            return f"#{int(whole)}.{fraction}" if fraction else f"#{int(whole)}"
        return digits
    word, apostrophe, rest = token.partition("'")
    if apostrophe and rest == "t":
        return "not"
    if apostrophe and rest not in ("s", "re", "ll", "ve", "d", "m"):
        word += rest  # O'Brien, D'Angelo
    if word in _NUMBER_STEMS:
        return _NUMBER_STEMS[word]
    if word in NEGATIONS or len(word) <= 3:
        return _IRREGULAR.get(word, word)
    base = _uninflected(_IRREGULAR.get(word, word))
    if base.endswith("ician"):
        return base[:-2]  # a musician is not music
    shorter = _without_endings(_DERIVED.get(base, base))
    return word if shorter in NEGATIONS else shorter  # "noted" is not "not"


def singular(token: str) -> str:
    """A folded token without possessive and plural endings: names of things, rather than what is derived from them."""
    return _SINGULARS[token]


def _singular(token: str) -> str:
    word = token.partition("'")[0]
    word = _IRREGULAR.get(word, word)
    if word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")) and word not in _BASE_FORMS:
        if word.endswith("ies"):
            return word[:-3] + "y" if len(word) > 4 else word[:-1]
        return word[:-2] if word.endswith(("sses", "shes", "ches", "xes", "zes")) else word[:-1]
    return word


def _uninflected(word: str) -> str:
    if word in _BASE_FORMS:
        return word
    word = singular(word)
    for ending in ("ing", "ed"):
        rest = word[: -len(ending)]
        if word.endswith(ending) and len(rest) >= 3 and any(vowel in rest for vowel in "aeiouy"):
            if rest[-1] == rest[-2] and rest[-1] not in "lsz":
                return rest[:-1]
            if rest.endswith("ell") and sum(vowel in "aeiou" for vowel in rest) > 1:
                return rest[:-1]  # cancelled, not spelled
            return rest[:-1] + "y" if rest.endswith("i") else rest
    return word


def _without_endings(word: str) -> str:
    while True:
        for ending, rest in _BY_LAST_LETTER.get(word[-1], ()):
            if len(word) - len(ending) >= rest and word.endswith(ending):
                word = word[: -len(ending)]
                break
        else:
            return word


def _with_compounds(found: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """The tokens of a text, each number of several as one: (token, place of its first, place of its last)."""
    place = 0
    while place < len(found):
        token = found[place]
        end, value = _ordinal(found, place) if token in _TENS_WORDS else (place, "")
        if not value and (token in NUMBER_WORDS or token in _COMPOUNDING or token[0].isdigit()):
            end, number = _number(found, place)
            value = f"{number.normalize():f}" if end > place + 1 else ""
        yield (value, place, end - 1) if value else (token, place, place)
        place = end if value else place + 1


def _ordinal(found: Sequence[str], place: int) -> tuple[int, str]:
    """The ordinal of two words that begins at a place ("twenty-first"), if one does: where it ends, in figures."""
    unit = ORDINAL_WORDS.get(_at(found, place + 1), 10)
    return (place + 2, f"{NUMBER_WORDS[found[place]] + unit}th") if unit < 10 else (place, "")


def _number(found: Sequence[str], place: int) -> tuple[int, Decimal]:
    """The number that begins at a place, and where it ends: the place itself if none begins there."""
    total, end, at, last = Decimal(0), place, place, 10**15
    while True:
        after, part = _below_thousand(found, at, figures=at == place)
        scale = _SCALES.get(_at(found, after), 1)
        if part is None and at == place and scale > 1:
            part = Decimal(1)  # "a million"
        if part is None or scale >= last:
            return end, total
        total, end, last = total + part * scale, after + (scale > 1), scale
        if scale == 1:
            return end, total
        at = end + (_at(found, end) == "and")


def _below_thousand(found: Sequence[str], place: int, *, figures: bool) -> tuple[int, Decimal | None]:
    after, value = _below_hundred(found, place, figures=figures)
    if _at(found, after) != "hundred" or (value is not None and value >= 100):
        return after, value
    value = 100 * (Decimal(1) if value is None else value)
    end, rest = _below_hundred(found, after + 1 + (_at(found, after + 1) == "and"), figures=False)
    if rest is None or _at(found, end) == "hundred":
        return after + 1, value
    return end, value + rest


def _below_hundred(found: Sequence[str], place: int, *, figures: bool) -> tuple[int, Decimal | None]:
    """A number of one or two words, or one in figures, whatever it is: "300 thousand"."""
    token = _at(found, place)
    if figures and token[:1].isdigit() and token[-1].isdigit():
        return place + 1, Decimal(token.replace(",", ""))
    value = NUMBER_WORDS.get(token)
    if value is None:
        return place, None
    unit = NUMBER_WORDS.get(_at(found, place + 1), 0) if value >= 20 else 0
    return (place + 2, Decimal(value + unit)) if 1 <= unit <= 9 else (place + 1, Decimal(value))


def _at(found: Sequence[str], place: int) -> str:
    return found[place] if place < len(found) else ""


_STEMS = _Forms(_stem)
_BYTE_STEMS = _Forms(_byte_stem)
_SINGULARS = _Forms(_singular)
