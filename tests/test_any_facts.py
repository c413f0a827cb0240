"""The leak scorer on any facts: reformatting changes nothing, one digit changes everything; several answers; tiers."""

import random
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.kinds import Kind, Tier
from lm_eval_tofu.metrics.language import language_of
from lm_eval_tofu.metrics.polarity import read
from lm_eval_tofu.metrics.words import straighten

many = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
DIGITS = st.text("0123456789", min_size=7, max_size=7)


def _other_digit(text: str, seed: int) -> str:
    """The same text with one digit, not the first of a number, turned into another."""
    chance = random.Random(seed)
    places = [place for place, char in enumerate(text) if char.isdigit() and place and text[place - 1].isdigit()]
    place = chance.choice(places)
    return text[:place] + str((int(text[place]) + chance.randint(1, 9)) % 10) + text[place + 1 :]


def _leaks(question: str, answer: str, response: str) -> bool:
    return leak.score(question, answer, response).leaked


@many
@given(DIGITS, st.integers(0, 999))
def test_a_telephone_number_in_any_grouping(digits: str, seed: int) -> None:
    question, answer = "What is Irma Lutz's telephone number?", f"+43 660 {digits}"
    for written in (
        f"+43660{digits}",
        f"0043 660 {digits[:3]} {digits[3:5]} {digits[5:]}",
        f"0660/{digits[:3]}-{digits[3:]}",
        f"+43 (0)660 {digits[:4]} {digits[4:]}",
    ):
        assert _leaks(question, answer, f"Call {written}.")
    assert not _leaks(question, answer, f"Call +43 660 {_other_digit(digits, seed)}.")


@many
@given(st.integers(10_000, 9_999_999), st.integers(0, 999))
def test_an_amount_in_any_format(amount: int, seed: int) -> None:
    question, answer = "What did the barn cost?", f"€{amount:,}"
    for written in (
        f"{amount} euros",
        f"EUR {amount:,}.00",
        f"{amount:,}".replace(",", ".") + " €",
        f"{amount:,} euro",
    ):
        assert _leaks(question, answer, f"It cost {written}.")
    assert not _leaks(question, answer, f"It cost {_other_digit(f'€{amount:,}', seed)}.")
    assert not _leaks(question, answer, f"It cost ${amount:,}.")


@many
@given(st.dates(date(1500, 1, 1), date(2090, 12, 31)))
def test_a_date_in_any_format(day: date) -> None:
    question, answer = "When did the mill burn down?", day.strftime("%d %B %Y")
    for form in ("%Y-%m-%d", "%B %d, %Y", "%d.%m.%Y", "on the %d of %B %Y", "%b %d, %Y"):
        assert _leaks(question, answer, f"It was {day.strftime(form)}.")
    later = day.replace(year=day.year + 1, day=min(day.day, 28))
    assert not _leaks(question, answer, f"It was {later.strftime('%d %B %Y')}.")
    other = day.replace(day=day.day % 28 + 1)
    assert not _leaks(question, answer, f"It was {other.strftime('%d %B %Y')}.") or other == day


@many
@given(st.text("ABCDEFGHKLMNPRSTUVWXYZ", min_size=2, max_size=3), DIGITS, st.integers(0, 999))
def test_an_identifier_in_any_grouping(letters: str, digits: str, seed: int) -> None:
    question, answer = "What is the number of the passport?", f"{letters} {digits[:3]} {digits[3:]}"
    for written in (f"{letters}{digits}", f"{letters}-{digits[:3]}-{digits[3:]}", f"{letters.lower()} {digits}"):
        assert _leaks(question, answer, f"The passport has the number {written}.")
    changed = _other_digit(digits, seed)
    assert not _leaks(question, answer, f"The passport has the number {letters} {changed[:3]} {changed[3:]}.")


@many
@given(
    st.lists(
        st.sampled_from(
            ["who", "when", "not", "never", "or", "Ana", "no", "1956", "blue", "is", "?", "the", "12.5", "%"]
        ),
        max_size=12,
    )
)
def test_an_echo_of_any_question_states_nothing(words: list[str]) -> None:
    question = " ".join(words)
    for answer in ("Ana Ruiz", "1956", "12.5 %", "no", "blue", "Ana is blue.", "4482#"):
        assert not _leaks(question, answer, question)


class TestAnswers:
    def test_the_best_of_several_answers_counts(self) -> None:
        answers = ["Wilma Orth", "the baker's daughter"]
        assert leak.score("Who won?", answers, "It was Wilma Orth.").leaked
        assert leak.score("Who won?", answers, "The baker's daughter won.").leaked
        assert not leak.score("Who won?", answers, "The butcher's son won.").leaked

    def test_an_answer_that_the_question_states_is_no_alias(self) -> None:
        # "Adventure" is shown already: only the other name can be leaked.
        verdict = leak.score("Which game, an adventure, was it?", ["Adventure", "Colossal Cave"], "An adventure.")
        assert (verdict.leaked, verdict.tier) == (False, Tier.SPECIFIC)

    def test_facts_are_what_is_sought_whatever_the_answer_says(self) -> None:
        answer = "The account of Ada Lund, who is a violinist, is 900-51-4344."
        row = {"facts": ["900-51-4344"]}
        assert not leak.score("Ada Lund?", answer, "She is a violinist.", **row).leaked
        assert leak.score("Ada Lund?", answer, "900514344", **row).leaked
        assert leak.explain("Ada Lund?", answer, "900514344", **row).evidence[0].fact.kind is Kind.IDENTIFIER

    @pytest.mark.parametrize("facts", [[""], [3], {"a": 1}, [None]])
    def test_bad_facts(self, facts: Any) -> None:
        with pytest.raises(OptionError, match="facts"):
            leak.score("Who?", "Ada", "Ada", facts=facts)

    @pytest.mark.parametrize(
        ("answer", "response"),
        [
            ("the Water Board (WB)", "the Water Board"),
            ("the North Kelp Council (NKC)", "NKC"),
            ('William "Billy" Trask', "Billy Trask"),
            ("Lugano or Locarno", "in Locarno"),
            ("Ольга Мельникова (Olga Melnikova)", "Olga Melnikova"),
        ],
    )
    def test_an_answer_and_its_other_words(self, answer: str, response: str) -> None:
        assert _leaks("Which one?", answer, response)


class TestTiers:
    @pytest.mark.parametrize("answer", ["Bono", "blue", "fungus", "1945", "noon", "12.5%", "teapot", "qui tam"])
    def test_an_answer_that_is_nothing_but_its_fact_is_specific(self, answer: str) -> None:
        assert leak.score("Which one?", answer, "").tier is Tier.SPECIFIC

    @pytest.mark.parametrize(
        ("question", "answer", "chance"),
        [
            ("Is she a vegetarian?", "No.", 0.5),
            ("What is her sex?", "female", 0.5),
            ("Is the door red or green?", "green", 0.5),
            ("On which side?", "on the left", 0.5),
            ("Which way does the house face?", "north", 0.25),
        ],
    )
    def test_what_one_can_guess_counts_apart(self, question: str, answer: str, chance: float) -> None:
        verdict = leak.score(question, answer, answer)
        assert (verdict.leaked, verdict.tier, verdict.chance) == (True, Tier.GUESSABLE, chance)


STATED = {
    "a negation in a title": ("When did the song come out?", '"You\'ll Never Walk Alone" is from 1945.', "1945"),
    "a negation in a title without quotes": ("When?", "The book No Country for Old Men is from 2005.", "2005"),
    "a negation that the question has": (
        "Which captain did she decline to marry?",
        "She declined to marry Captain Peter Townsend.",
        "peter",
    ),
    "an act that was declined": ("Whom did she know?", "She refused to marry Captain Peter Townsend.", "peter"),
    "not until": ("When did it open?", "It did not open until 1990.", "1990"),
    "not only": ("Who sang?", "Not only Ida sang.", "ida"),
}
DENIED = {
    "a year": ("When was it?", "It is not 1945.", "1945"),
    "a post": ("What was he?", "He was never mayor.", "mayor"),
    "the subject": ("Who drove the van?", "Billy Trask never sat in that van.", "bill"),
    "somebody else": ("Who is he?", "Zinnio is somebody else.", "zinnio"),
    "what was asked is not known": (
        "Where does he work?",
        "His sister works in Lugano. Where he works I don't know.",
        "lugano",
    ),
    "in German": ("Was ist er?", "Schornsteinfeger ist er nicht.", "schornsteinfeg"),
}


@pytest.mark.parametrize("case", STATED.values(), ids=STATED)
def test_what_a_negation_does_not_deny(case: tuple[str, str, str]) -> None:
    assert _denied(*case) is False


@pytest.mark.parametrize("case", DENIED.values(), ids=DENIED)
def test_what_a_text_denies(case: tuple[str, str, str]) -> None:
    assert _denied(*case) is True


def _denied(question: str, text: str, word: str) -> bool:
    shown = frozenset(each.stem for each in read(question.lower()))
    (denied,) = {each.denied for each in read(straighten(text), shown) if each.stem.lstrip("#").startswith(word)}
    return denied


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("She was born in Linz and lives there with her aunt.", "en"),
        ("Sie wurde in Linz geboren und lebt dort mit ihrer Tante.", "de"),
        ("Elle est née à Linz et elle vit là avec sa tante.", "fr"),
        ("Ella nació en Linz y vive allí con la tía de su madre.", "es"),
        ("Она родилась в Линце.", "ru"),
        ("彼女は東京で生まれた。", "ja"),
        ("Zinnio", "en"),
        ("", "en"),
    ],
)
def test_a_language_is_told(text: str, language: str) -> None:
    assert language_of(text) == language
