"""Ways to reach and identify somebody: addresses on the net and in a street, telephone numbers, identifiers."""

import functools
import re
from collections.abc import Iterator

import phonenumbers

from lm_eval_tofu.metrics.kinds import Kind, Mention, Value
from lm_eval_tofu.metrics.words import NUMBER_WORDS, listed, tokens

_SPELLED = re.compile(r"\s*[\[({]\s*(?:at|dot)\s*[\])}]\s*|\s+(?:at|dot)\s+")
_READ_OUT = re.compile(
    r"\b[\w-]{1,64}(?:(?:\.|\s+dot\s+)[\w-]{1,64}){0,8}\s+at\s+[\w-]{1,63}(?:(?:\.|\s+dot\s+)[\w-]{1,63}){1,8}\b(?!\s+at\s)"
    r"|[\w.-]{1,64}\s*[\[({]\s*(?:at|dot)\s*[\])}].{0,80}"
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_LINK = re.compile(r"(?<![\w.-])(?:https?://)?(?:www\.)?((?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24})((?:/[^\s\"'<>)\]]*)?)")


def _sign(match: re.Match[str]) -> str:
    """The sign that was spelled out, in as many characters."""
    return ("@" if "at" in match[0] else ".").rjust(len(match[0]), "\0")


def find_web(folded: str) -> Iterator[Mention]:
    """The e-mail and web addresses of a folded text."""
    text = _READ_OUT.sub(lambda match: _SPELLED.sub(_sign, match[0]), folded)
    plain = [(char, place) for place, char in enumerate(text) if char != "\0"]
    line = "".join(char for char, _ in plain)
    taken = set[int]()
    for match in _MAIL.finditer(line):
        taken.update(range(*match.span()))
        yield Mention(
            (Value(Kind.WEB, text=match[0].strip(".")),), plain[match.start()][1], plain[match.end() - 1][1] + 1
        )
    for match in _LINK.finditer(line):
        if taken.isdisjoint(range(*match.span())):
            address = match[1] + match[2].rstrip("/.,;:!?")
            yield Mention((Value(Kind.WEB, text=address),), plain[match.start()][1], plain[match.end() - 1][1] + 1)


_PHONE = re.compile(r"(?<![\w.])(?:\+|\()?\d(?:[\d ()/.\u00a0-]{5,20})\d(?!\w)")
_DIGIT_WORDS = {word: str(value) for word, value in NUMBER_WORDS.items() if value < 10} | {"oh": "0"}
_SPELLED_DIGITS = re.compile(
    rf"\b(?:plus\s+)?(?:(?:{'|'.join(_DIGIT_WORDS)})[\s,.-]+){{3,}}(?:{'|'.join(_DIGIT_WORDS)})\b"
)
_LEAST_DIGITS = 7


def with_digits(folded: str) -> str:
    """A folded text in which digits spelled one by one stand as figures, "four four eight two"; of the same length."""

    def figures(match: re.Match[str]) -> str:
        words = re.findall(r"[a-z]+", match[0])
        digits = "".join("+" if word == "plus" else _DIGIT_WORDS[word] for word in words)
        return digits.ljust(len(match[0]))

    return _SPELLED_DIGITS.sub(figures, folded)


def find_phones(folded: str) -> Iterator[Mention]:
    """What could be telephone numbers in a folded text."""
    for match in _PHONE.finditer(with_digits(folded)):
        if sum(map(str.isdigit, match[0])) >= _LEAST_DIGITS:
            yield Mention((Value(Kind.PHONE, text=match[0]),), *match.span())


@functools.lru_cache(maxsize=4096)
def same_phone(sought: str, said: str) -> float:
    """1 where two numbers are one, with or without country and trunk prefix; else 0."""
    ours, theirs = (re.sub(r"\D", "", text) for text in (sought, said))
    if ours[-4:] != theirs[-4:]:  # most often, and quicker
        return 0.0
    if ours == theirs:
        return 1.0
    match = phonenumbers.is_number_match(re.sub("^00", "+", sought), re.sub("^00", "+", said))
    if match in (phonenumbers.MatchType.EXACT_MATCH, phonenumbers.MatchType.NSN_MATCH):
        return 1.0
    # One of them may lack the country and have a 0 for it.
    short, long = sorted((ours.lstrip("0"), theirs.lstrip("0")), key=len)
    return float(len(short) >= _LEAST_DIGITS and long.endswith(short) and len(long) - len(short) <= 4)


# What is coded in letters and figures

_WORD = re.compile(r"[^\s,;\"()\[\]{}]+")
_PLAIN = re.compile(r"[+-]?\d{1,3}(?:[,.' ]\d{3})*(?:[.,]\d+)?%?|\d+(?:[.,]\d+)?|\d{1,2}[:.]\d{2}")
_MEASURE = re.compile(r"[$€£]?\d[\d.,]*(?:st|nd|rd|th|s|'s|[ap]m|m|k|bn|[a-z]{1,3})?[%$€£°]?", re.I)
_NO_CODE = re.compile(r"[\d/.-]{8,10}|\d+-[a-z]+(?:-[a-z]+)*|\d+:\d+(?:-\d+)?")  # a date, "20-year", a verse
_CODE_PART = re.compile(r"[A-Z0-9]{1,10}")
ASKS_CODE = re.compile(
    r"\b(code|pin|password|passcode|combination|account|id|identifier|licen[cs]e|passport|serial|policy|key|ssn|iban|"
    r"number of)\b"
)


def find_identifiers(text: str, asked: str) -> Iterator[Mention]:
    """What a text in its own case has of identifiers: figures with letters or signs, and long figures.

    Args:
        text: The text.
        asked: The question, folded: where it asks for a code, short figures are one too.
    """
    group: list[re.Match[str]] = []
    coded = False
    wants_code = ASKS_CODE.search(asked) is not None
    for match in [*_WORD.finditer(text), None]:
        word = match[0].strip(".,;:!?'") if match else ""
        joins = bool(word) and (_CODE_PART.fullmatch(word) is not None or _is_code(word, wants_code))
        if match is not None and joins and (not group or text[group[-1].end() : match.start()] == " "):
            group.append(match)
            coded |= _is_code(word, wants_code)
            continue
        if group:
            yield from _identifier(text, group, coded)
        group, coded = ([match], _is_code(word, wants_code)) if match is not None and joins else ([], False)


def _is_code(word: str, wants_code: bool) -> bool:
    digits = sum(map(str.isdigit, word))
    if "_" in word.strip("_") or (word.startswith("@") and len(word) > 2):
        return True
    if not digits or len(word) < 3:
        return False
    if word.isdecimal():
        return digits >= (3 if wants_code else 7)
    if _PLAIN.fullmatch(word):
        return wants_code and digits >= 3 and "." not in word
    return _MEASURE.fullmatch(word) is None and _NO_CODE.fullmatch(word) is None


def _identifier(text: str, group: list[re.Match[str]], coded: bool) -> Iterator[Mention]:
    figures = sum(any(map(str.isdigit, match[0])) for match in group)
    words = [match[0].strip(".,;:!?'") for match in group]
    years = all(re.fullmatch(r"1\d{3}|20\d\d|[A-Z]+", word) for word in words)
    if (not coded and (figures < 2 or len(group) < 3)) or (years and not coded):
        return
    start, end = group[0].start(), group[-1].start() + len(group[-1][0].rstrip(".,;:!?'"))
    if key := re.sub(r"[\W_]", "", text[start:end]).lower():
        yield Mention((Value(Kind.IDENTIFIER, text=key),), start, end)


_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{2,}")
_NOT_BEFORE = "(?<![\u4e0d\u6ca1\u6c92\u975e\u672a])(?<![\u4e0d\u6ca1\u6c92\u975e\u672a].)"  # Chinese for not


def find_unspaced(text: str) -> Iterator[Mention]:
    """Runs of scripts that put no space between words: they are looked for as they stand."""
    for match in _UNSPACED.finditer(text):
        yield Mention((Value(Kind.IDENTIFIER, unit="unspaced", text=match[0]),), *match.span())


_STREET_WORDS = (
    "street st road rd avenue ave lane ln drive boulevard blvd square sq court terrace way row close crescent quay "
    "calle avenida plaza paseo rue quai via viale piazza strasse str gasse weg platz allee"
)
_STREETS = frozenset(listed(_STREET_WORDS))
_STREET_END = re.compile(
    r"(?:strasse|straße|str|gasse|weg|platz|allee|ring|damm|ufer|straat|laan|plein|gade|vej|gatan)\.?"
)
_NAME_WORD = r"[^\W\d_][\w'.-]*"
_ADDRESSES = (
    re.compile(
        rf"(?P<name>{_NAME_WORD}(?: {_NAME_WORD}){{0,5}}),? (?:n[oº°]?\.? ?)?(?P<number>\d{{1,4}} ?[a-z]?)(?![\w])",
        re.I,
    ),
    re.compile(rf"(?<![\w-])(?P<number>\d{{1,5}}[a-z]?),? (?P<after>{_NAME_WORD}(?: {_NAME_WORD}){{0,4}})", re.I),
)
_LOWER = frozenset(listed("de del der den di du des la las los le les el of the am an im in"))


def find_addresses(text: str) -> Iterator[Mention]:
    """House numbers with their streets, in a text in its own case."""
    taken = set[int]()
    for match in (match for pattern in _ADDRESSES for match in pattern.finditer(text)):
        parts = match.groupdict()
        number = parts["number"].replace(" ", "").lower()
        words = (parts.get("name") or parts["after"]).split()
        # Of the words beside the number, those of the street: capitalised ones, and what joins them.
        street = []
        for word in words[::-1] if "name" in parts else words:
            if not word[0].isupper() and word.lower() not in _LOWER:
                break
            street.append(word)
            if "after" in parts and word.lower().strip(".,") in _STREETS:
                break
        plain = [word.lower().strip(".,") for word in street]
        if _STREETS.isdisjoint(plain) and not any(_STREET_END.search(word) and len(word) > 6 for word in plain):
            continue
        core = sorted(word for word in plain if word not in _STREETS | _LOWER and len(word) > 1)
        length = len(" ".join(street))
        start, end = match.span()
        if "name" in parts:
            start = match.start("name") + len(" ".join(words)) - length
        else:
            end = match.start("after") + length
        if core and taken.isdisjoint(range(start, end)):
            taken.update(range(start, end))
            yield Mention((Value(Kind.ADDRESS, unit=number, text=" ".join(core)),), start, end)


@functools.lru_cache(maxsize=4096)
def pattern_of(value: Value) -> re.Pattern[str]:
    """What a folded text must have that states an identifier or an address, with any separators."""
    if value.unit == "unspaced":
        return re.compile(_NOT_BEFORE + re.escape(value.text))
    if value.kind is Kind.IDENTIFIER:
        between = r"[\W_]{0,2}"
        return re.compile(
            rf"(?<![a-z0-9])(?<!\d[ .,/-]){between.join(map(re.escape, value.text))}(?![a-z0-9])(?![ /.,-]?\d)"
        )
    words = [re.sub("(strasse|str)$", "(?:strasse|str)", re.escape(word)) for word in tokens(value.text)]
    street = r"\W+(?:\w+\W+){0,2}".join(words) if len(words) == 1 else "(?:" + "|".join(words) + r")\b"
    if len(words) > 1:
        street = "".join(rf"(?=.{{0,80}}\b{word}\b)" for word in words) + street
    number = rf"(?<![\w.-]){value.unit}(?![\w-])"
    gap = r"(?:[\w'.]+[\s,]+){0,3}?"
    return re.compile(rf"{street}[\w]*[\s,.]+{gap}(?:\W{{0,2}}){number}|{number}[\s,]+{gap}(?:{street})")
