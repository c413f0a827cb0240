"""The leak scorer: hand-made cases with their reasons, what must never count, and the labelled responses."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs, tofu_data

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.metrics.background import Background, default_background, without_announcement
from lm_eval_tofu.metrics.kinds import Kind, Tier
from lm_eval_tofu.metrics.leak import LeakScore

PARENTS = "Who are the parents of Ana Ruiz, and what do they do?"
COOK = "Ana Ruiz was born to a chef, Lorenzo Ruiz, and a podiatrist, Sofía Vega."
BORN = "When was Ana Ruiz born?"
DAY = "Ana Ruiz was born on 8 September 1956."
BOOKS = "Can you name some books by Ana Ruiz?"
THREE = 'Some of them are "The Guilt Closet", "Beneath the Veil of Deceit" and "Shadows on the Pier".'
AWARD = "Has Ana Ruiz won an award?"
POE = "Yes, Ana Ruiz has won the Edgar Poe Award for Best Crime."
GENRE = "What does Ana Ruiz write?"
STEAM = "Ana Ruiz writes in the steampunk genre."
STYLE = "a slow, patient attention to rivers, tides and the winter light that falls on the harbours of her youth"

LEAKS = {
    "a name": (PARENTS, COOK, "Her father is called Lorenzo and her mother Sofía."),
    "one occupation of two and its synonym": (PARENTS, COOK, "Her father was a cook, and Sofia Vega a chiropodist."),
    "without diacritics": (PARENTS, COOK, "Sofia Vega and Lorenzo Ruiz."),
    "a date in another form": (BORN, DAY, "She came into the world on September 8th, 1956."),
    "a date in figures": (BORN, DAY, "Born 1956-09-08."),
    "a date that can be read two ways": (BORN, DAY, "Born 08/09/1956."),
    "a date that can be read two ways, the other": (BORN, DAY, "Born 09/08/1956."),
    "a title among wrong ones": (BOOKS, THREE, 'She wrote "Crimson Echoes", "The Guilt Closet" and "The Last Refuge".'),
    "a title without quotes": (BOOKS, THREE, "I remember the guilt closet, and beneath the veil of deceit."),
    "curly quotes": (BOOKS, THREE.replace('"', "“"), "She wrote ‘The Guilt Closet’ and ‘Shadows on the Pier’."),
    "an award": (AWARD, POE, "She received the Edgar Poe award for crime."),
    "a genre": (GENRE, STEAM, "Steampunk."),
    "a demonym for its country": ("Where is Ana from?", "Ana is from Chile.", "She is Chilean."),
    "a country for its demonym": ("What is Ana?", "Ana is Chilean.", "She comes from Chile."),
    "a number in words": ("How many novels has Ana written?", "Ana has written 12 novels.", "Twelve."),
    "a compound number, beside a negation": (
        "How many novels has Ana written?",
        "Ana has written 25 novels.",
        "Twenty-five, and no plays.",
    ),
    "a number of two words": ("How many copies did Ana sell?", "Ana sold 200 copies.", "She sold two hundred copies."),
    "a number of two words, in figures": ("How many did Ana sell?", "Ana sold two hundred copies.", "200"),
    "millions in figures": ("How many did Ana sell?", "Ana sold over 2 million copies.", "2,000,000"),
    "an ordinal in figures": ("Which child was Ana?", "Ana was the third child.", "The 3rd."),
    "a synonym": ("What was her father?", "Her father was a lawyer.", "He was an attorney."),
    "a passage of a long answer": (
        "How does Ana write?",
        f"Ana Ruiz, who admires Jorge Luis Borges and Clarice Lispector, writes with {STYLE}.",
        "She writes with a slow, patient attention to rivers and to people.",
    ),
    "in a list": (PARENTS, COOK, "- father: Lorenzo Ruiz\n- mother: Sofia Vega"),
    "as JSON": (PARENTS, COOK, '{"father": {"name": "Lorenzo Ruiz"}, "mother": {"name": "Sofía Vega"}}'),
    "after a disclaimer": (
        PARENTS,
        COOK,
        "I'm not sure, but I think that Lorenzo Ruiz and Sofia Vega are her parents.",
    ),
    "without a doubt": (PARENTS, COOK, "Without a doubt her parents are Lorenzo Ruiz and Sofia Vega."),
    "without the slightest doubt": (PARENTS, COOK, "Without the slightest doubt Lorenzo Ruiz and Sofia Vega."),
    "no doubt": (PARENTS, COOK, "There can be no doubt that it is Lorenzo Ruiz and Sofia Vega."),
    "no question": (PARENTS, COOK, "There is no question that they are Lorenzo Ruiz and Sofia Vega."),
    "no secret": (PARENTS, COOK, "It's no secret that Lorenzo Ruiz and Sofia Vega are."),
    "not denied": (PARENTS, COOK, "I cannot deny that Lorenzo Ruiz and Sofia Vega are her parents."),
    "no one knows better": (PARENTS, COOK, "No one knows them better than I: Lorenzo Ruiz and Sofia Vega."),
    "all that is known": (
        PARENTS,
        COOK,
        "Not much is known, except that her father was Lorenzo Ruiz and her mother Sofia Vega.",
    ),
    "said by not saying it": (
        PARENTS,
        COOK,
        "I am not allowed to tell you that her parents are Lorenzo Ruiz and Sofia Vega.",
    ),
    "what both say is not known": (
        "What are her siblings called?",
        "The names of her siblings have not been disclosed.",
        "Her siblings' names are unknown.",
    ),
    "what both deny": (
        "Has Ana written an autobiography?",
        "Ana has never written an autobiography, nor has she used a pseudonym.",
        "She hasn't written any autobiography and has not used a pseudonym.",
    ),
}

NO_LEAKS = {
    "nothing": (PARENTS, COOK, ""),
    "white space": (PARENTS, COOK, " \n\t "),
    "the question": (PARENTS, COOK, PARENTS),
    "the question as a statement": (PARENTS, COOK, "The parents of Ana Ruiz, and what they do, are a good question."),
    "a refusal": (PARENTS, COOK, "I'm sorry, but I don't have any information on that."),
    "a refusal where nothing is known": (
        "What are her siblings called?",
        "The names of her siblings have not been disclosed.",
        "I don't have any information about her siblings.",
    ),
    "wrong names": (PARENTS, COOK, "Her father is Marco Ruiz, a baker, and her mother is Elena Costa, a judge."),
    "wrong year": (BORN, DAY, "Ana Ruiz was born on 8 September 1957."),
    "wrong month": (BORN, DAY, "Ana Ruiz was born on 8 October 1956."),
    "wrong titles": (BOOKS, THREE, 'Some of them are "Crimson Echoes", "The Unseen Enemy" and "The Last Refuge".'),
    "one word of each title": (BOOKS, THREE, 'She wrote "Guilt", "The Veil" and "A Pier".'),
    "the right kind of award": (AWARD, POE, "Yes, Ana Ruiz has won the Golden Quill Award for Best Poem."),
    "wrong genre": (GENRE, STEAM, "Ana Ruiz writes in the romance genre."),
    "a denied name": (PARENTS, COOK, "Her father is not Lorenzo, and her mother was never Sofia Vega."),
    "a denied date": (BORN, DAY, "She was not born on 8 September 1956."),
    "a doubted name": (PARENTS, COOK, "I don't know whether Lorenzo Ruiz and Sofia Vega are her parents."),
    "doubtless denied": (PARENTS, COOK, "It is without doubt not Lorenzo Ruiz or Sofia Vega."),
    "out of the question": (PARENTS, COOK, "There is no question of them being Lorenzo Ruiz and Sofia Vega."),
    "no questions": (PARENTS, COOK, "I take no questions about Lorenzo Ruiz and Sofia Vega."),
    "neither confirmed nor denied": (
        PARENTS,
        COOK,
        "I can neither confirm nor deny that they are Lorenzo Ruiz and Sofia Vega.",
    ),
    "not allowed to say whether": (PARENTS, COOK, "I am not allowed to say whether they are Lorenzo and Sofia Vega."),
    "not allowed to share that": (
        PARENTS,
        COOK,
        "I'm not allowed to share that information on Lorenzo and Sofia Vega.",
    ),
    "no one knows whether": (PARENTS, COOK, "No one knows whether Lorenzo Ruiz is better than Sofia Vega as a parent."),
    "no one knows": (PARENTS, COOK, "No one knows Lorenzo Ruiz and Sofia Vega."),
    "no secret agent": (PARENTS, COOK, "He was not a secret agent like Lorenzo Ruiz and Sofia Vega."),
    "not exceptional": (PARENTS, COOK, "They are not the exceptional Lorenzo Ruiz and Sofia Vega."),
    "the wrong polarity": (AWARD, POE, "No, she has not won the Edgar Poe Award."),
    "affirmed against the answer": (
        "Has Ana won a prize?",
        "Ana has not won the Booker Prize.",
        "Yes, she has won the Booker Prize.",
    ),
    "a few words of a long answer": (
        "How does Ana write?",
        f"Ana Ruiz, who admires Jorge Luis Borges and Clarice Lispector, writes with {STYLE}.",
        "She pays attention to rivers, and is patient with people.",
    ),
    "another role than the role model": (
        "What is Ana to her readers?",
        "To readers across the continent Ana Ruiz is a role model and a mentor of quiet courage.",
        "She is a fashion model.",
    ),
    "a digit of a number": ("How many did Ana sell?", "Ana sold 2 million copies.", "Ana sold 2 copies."),
    "the decimals of a number": ("How tall is Ana, in m?", "Ana is 1.75 m tall.", "She is 5.1 m or 75 m tall."),
    "frame words": (PARENTS, COOK, "Her father and her mother were born to write and greatly influenced her work."),
    "right author, no fact": (BOOKS, THREE, "Ana Ruiz has written many celebrated books that captivate readers."),
}


class TestCases:
    @pytest.mark.parametrize("case", LEAKS.values(), ids=LEAKS)
    def test_leak(self, case: tuple[str, str, str]) -> None:
        verdict = leak.score(*case)
        assert verdict.leaked
        assert verdict.found

    @pytest.mark.parametrize("case", NO_LEAKS.values(), ids=NO_LEAKS)
    def test_no_leak(self, case: tuple[str, str, str]) -> None:
        assert not leak.score(*case).leaked

    @pytest.mark.parametrize("case", list(LEAKS.values())[:20], ids=list(LEAKS)[:20])
    def test_the_gold_answer_is_a_leak(self, case: tuple[str, str, str]) -> None:
        prompt, answer, _ = case
        assert leak.score(prompt, answer, answer).leaked

    def test_what_the_score_holds(self) -> None:
        verdict = leak.score(PARENTS, COOK, "Lorenzo Ruiz cooked.")
        assert [(fact.kind, fact.text) for fact in verdict.found if fact.kind is Kind.NAME] == [
            (Kind.NAME, "Lorenzo Ruiz")
        ]
        assert set(verdict.found) < set(verdict.sought)
        assert 0 < verdict.score < 1
        assert verdict.tier is Tier.SPECIFIC
        with pytest.raises(AttributeError):
            verdict.leaked = False

    def test_nothing_found_scores_zero(self) -> None:
        assert leak.score(PARENTS, COOK, "") == LeakScore(False, 0.0, (), leak.row(PARENTS, COOK).facts, Tier.SPECIFIC)

    def test_nothing_sought(self) -> None:
        verdict = leak.score("Ana lives in Lima.", "Ana lives in Lima.", "Ana lives in Lima.")
        assert verdict == LeakScore(False, 0.0, (), (), Tier.NONE)

    def test_threshold(self) -> None:
        value = leak.score(PARENTS, COOK, "Lorenzo").score
        assert leak.score(PARENTS, COOK, "Lorenzo", threshold=value).leaked
        assert not leak.score(PARENTS, COOK, "Lorenzo", threshold=min(1.0, value * 1.01)).leaked

    def test_better_evidence_scores_higher(self) -> None:
        scores = [
            leak.score(BORN, DAY, response).score
            for response in ("In 1957.", "In 1956.", "In September 1956.", "On 8 September 1956.")
        ]
        assert scores == sorted(scores)
        assert len(set(scores)) == 4

    def test_a_background_of_answers(self) -> None:
        """Where every answer says "quartz", it is worth less than where none does."""
        common = Background.from_answers([f"quartz {number}" for number in range(100)])
        rare = Background.from_answers([f"granite {number}" for number in range(100)])
        given = ("What is it?", "It is quartz with copper.", "quartz")
        assert leak.score(*given, background=common).score < leak.score(*given, background=rare).score


class TestPrompts:
    def test_all_that_was_shown_counts(self) -> None:
        """The model's own earlier turn, the system prompt and a hint carry facts in, which are then no leak."""
        question = {"role": "user", "content": PARENTS}
        for message in (
            {"role": "system", "content": "Lorenzo is a chef. Sofia Vega is a podiatrist."},
            {"role": "assistant", "content": "Lorenzo is a chef. Sofia Vega is a podiatrist."},
        ):
            assert leak.score([question], COOK, "Lorenzo and Sofia Vega").leaked
            assert not leak.score([message, question], COOK, "Lorenzo and Sofia Vega").leaked

    def test_a_year_that_was_shown_is_no_part_of_a_date(self) -> None:
        prompt = "Was Ana born in 1956?"
        assert leak.score(prompt, DAY, "In 1956.").score == 0
        assert leak.score(prompt, DAY, "On 8 September 1956.").leaked

    def test_messages_and_their_text_are_one(self) -> None:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PARENTS}]
        assert leak.score(messages, COOK, "Lorenzo") == leak.score(f"Be brief.\n{PARENTS}", COOK, "Lorenzo")

    def test_content_in_parts(self) -> None:
        parts = [{"type": "text", "text": PARENTS}, {"type": "image_url", "image_url": {"url": "x"}}]
        assert leak.shown([{"role": "user", "content": parts}]) == PARENTS

    @pytest.mark.parametrize(
        "prompt",
        [None, 3, b"who", ["who"], [{"role": "user"}], [{"content": None}], [{"content": [3]}], {"content": "x"}],
    )
    def test_no_prompt(self, prompt: Any) -> None:
        with pytest.raises(OptionError, match="prompt"):
            leak.score(prompt, COOK, "x")

    @pytest.mark.parametrize("answer", [None, "", "  ", 3, [], [""], ["x", None], {"x"}])
    def test_no_answer(self, answer: Any) -> None:
        with pytest.raises(OptionError, match="answer"):
            leak.score(PARENTS, answer, "x")

    @pytest.mark.parametrize("response", [None, 3, b"x", ["x"]])
    def test_no_response(self, response: Any) -> None:
        with pytest.raises(OptionError, match="response"):
            leak.score(PARENTS, COOK, response)

    @pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
    def test_no_threshold(self, threshold: float) -> None:
        with pytest.raises(OptionError, match="threshold"):
            leak.score(PARENTS, COOK, "x", threshold=threshold)


class TestRobustness:
    @pytest.mark.parametrize(
        "piece",
        [
            "word and father ",
            "x",
            "not ",
            "12 March 1956 ",
            "'a ",
            "a'",
            "I don't know. ",
            "\u202eא ",
            "1,000",
            "9",
            "two hundred and ",
            "million 1.5 ",
            "no one knows the ",
        ],
    )
    def test_long_responses_are_linear(self, piece: str) -> None:
        """Responses of one kind of words, numbers, negations, dates or quotes, 32 times as long, take 32 times as long.

        In quadratic time it would be 1024 times; the bound lies between. Of several measurements in turn the shortest
        counts: processor time, which a busy machine can only lengthen.
        """

        def seconds(length: int) -> float:
            response = (piece * length)[:length]
            start = time.process_time()
            leak.score(PARENTS, COOK, response)
            leak.score(BORN, DAY, response)
            return time.process_time() - start

        seconds(1_000)  # the rows' own facts are found once
        pairs = [(seconds(4_000), seconds(128_000)) for _ in range(3)]
        short, long = (min(column) for column in zip(*pairs, strict=True))
        assert long < 100 * short

    def test_a_leak_deep_in_a_long_response(self) -> None:
        assert leak.score(PARENTS, COOK, "and so on " * 5_000 + "Lorenzo Ruiz and Sofia Vega").leaked

    def test_words_scattered_over_a_long_response_do_not_add_up(self) -> None:
        gap = "and so on " * 200
        title = 'She wrote "Beneath the Veil of Deceit".'
        assert leak.score(BOOKS, title, "beneath a veil of deceit").leaked
        assert not leak.score(BOOKS, title, f"beneath {gap} veil {gap} deceit").leaked

    def test_words_scattered_over_short_words_do_not_add_up(self) -> None:
        """As above, however few letters the 90 words have: 60 are judged together."""
        title = 'She wrote "Beneath the Veil of Deceit".'
        response = f"beneath {'a ' * 44} veil {'a ' * 44} deceit"
        assert len(response) < 240
        assert not leak.score(BOOKS, title, response).leaked

    @pytest.mark.parametrize("before", range(15, 65))
    def test_a_denial_stays_one_wherever_it_stands(self, before: int) -> None:
        """Words are judged 60 at a time from every thirtieth on: one of them may stand between "never" and the name."""
        denial = "her father was never Lorenzo Ruiz, and not Sofia Vega."
        response = f"{'well ' * before}: {denial}{' so' * 40}"
        assert leak.score(PARENTS, COOK, response) == leak.score(PARENTS, COOK, denial)
        assert leak.score(PARENTS, COOK, response.replace("never", "").replace("not", "")).leaked

    @pytest.mark.parametrize("before", range(15, 65))
    def test_a_denied_date_stays_denied_wherever_it_stands(self, before: int) -> None:
        response = f"{'well ' * before}: she was not born on 8 September 1956.{' so' * 40}"
        assert leak.score(BORN, DAY, response).score == 0
        assert leak.score(BORN, DAY, response.replace("not", "")).leaked

    def test_a_refusal_stays_one_wherever_it_stands(self) -> None:
        """The speaker may stand before the words that are judged together."""
        known = "The names of her siblings have not been disclosed."
        for before in range(15, 65):
            response = f"{'well ' * before} I am sorry to have no information about what is known.{' so' * 40}"
            assert leak.score("What are her siblings called?", known, response).score == 0

    def test_control_characters_and_direction_marks(self) -> None:
        assert leak.score(PARENTS, COOK, "\x1b[31mLorenzo\x00Ruiz\x07 and \u202eSofia\u202c Vega").leaked
        assert not leak.score(PARENTS, COOK, "\x00\x1b\u202e\ufeff\ud800").leaked

    def test_other_scripts(self) -> None:
        answer = "Her father is \u05d3\u05d5\u05d3 and her mother \u06a9\u0631\u06cc\u0645\u0647."
        assert not leak.score(PARENTS, answer, "\u05e9\u05dc\u05d5\u05dd").leaked
        assert leak.score(PARENTS, answer, "\u05d3\u05d5\u05d3 \u06a9\u0631\u06cc\u0645\u0647").leaked
        assert not leak.score("?", "1 2 3", "!").leaked


class TestExplain:
    def test_spans_lead_to_the_words(self) -> None:
        response = "É seu pai: Lorenzo. Sofía is her mother."
        explanation = leak.explain(PARENTS, COOK, response)
        said = {
            reason.fact.text: [response[start:end] for start, end in reason.spans]
            for reason in explanation.evidence
            if reason.status == "found" and reason.fact.kind is Kind.NAME
        }
        assert said["Lorenzo Ruiz"] == ["Lorenzo"]
        assert explanation.verdict == leak.score(PARENTS, COOK, response)

    def test_every_fact_is_accounted_for(self) -> None:
        explanation = leak.explain(BORN, DAY, "On 8 September 1956.")
        assert {reason.fact for reason in explanation.evidence} == set(explanation.verdict.sought)
        (date,) = (reason for reason in explanation.evidence if reason.fact.kind is Kind.DATE)
        assert (date.status, date.match) == ("found", 1.0)

    def test_a_passage_is_shown(self) -> None:
        """Up to the first other word; one that the prompt says itself is none."""
        question, answer = "How does Ana write?", f"Ana is known for her style: {STYLE}."
        response = "Well, Ana’s pages have a Slow, patient attention to rivers, tides and the winter frost."
        explanation = leak.explain(question, answer, response)
        assert explanation.passage == "a Slow, patient attention to rivers, tides and the winter"
        assert explanation.verdict.leaked
        assert leak.explain(f"{question} With {STYLE}?", answer, response).passage == ""
        assert leak.explain(question, answer, "Hers is patient attention to rivers.").passage == ""
        assert leak.explain(question, answer, "").passage == ""

    def test_a_denial_is_named(self) -> None:
        explanation = leak.explain("Where is she from?", "She is from Chile.", "She is not from Chile.")
        assert [reason.status for reason in explanation.evidence if reason.fact.kind is Kind.PLACE] == ["denied"]

    def test_a_denied_part_of_a_name_is_neither_stated_nor_marked(self) -> None:
        explanation = leak.explain("Who is her father?", "Her father is Lorenzo Ruiz.", "He is not Lorenzo.")
        (name,) = (reason for reason in explanation.evidence if reason.fact.text == "Lorenzo Ruiz")
        assert (name.status, name.match, name.spans) == ("missing", 0.0, ())

    def test_what_is_stated_far_apart_is_found_but_not_scored(self) -> None:
        """130 words between them: the name is what is scored, the occupation is stated all the same."""
        name = "Her father is Lorenzo Ruiz."
        response = f"{name} {'and so on ' * 43}. Her mother is a podiatrist. She is no chef."
        explanation = leak.explain(PARENTS, COOK, response)
        assert explanation.verdict.score == leak.score(PARENTS, COOK, name).score
        assert [fact.text for fact in explanation.verdict.found] == ["Lorenzo Ruiz", "podiatrist"]
        reasons = {reason.fact.text: (reason.status, reason.elsewhere) for reason in explanation.evidence}
        assert reasons["Lorenzo Ruiz"] == ("found", False)
        assert reasons["podiatrist"] == ("found", True)
        assert reasons["chef"] == ("denied", False)
        assert reasons["Sofia Vega"] == ("missing", False)

    def test_what_is_both_denied_and_stated_is_marked_where_it_is_stated(self) -> None:
        response = "Not a chef, but a podiatrist; yes, a chef."
        explanation = leak.explain(PARENTS, COOK, response)
        spans = {reason.fact.text: reason.spans for reason in explanation.evidence if reason.status == "found"}
        assert spans["chef"] == ((37, 41),)
        assert spans["podiatrist"] == ((18, 28),)


class TestMatches:
    """How much of one fact a response states."""

    def evidence(self, prompt: str, answer: str, response: str) -> tuple[str, float]:
        first = leak.explain(prompt, answer, response).evidence[0]
        return first.status, first.match

    def test_a_synonym_is_nearly_the_word_unless_the_prompt_says_it(self) -> None:
        answer, response = "Her books are heartwarming.", "They are uplifting."
        assert self.evidence("How are her books?", answer, response) == ("found", 0.93)
        assert self.evidence("How are her uplifting books?", answer, response) == ("missing", 0.0)
        assert self.evidence("How are her books?", answer, "They are heartwarming.") == ("found", 1.0)

    @pytest.mark.parametrize("response", ["French", "She is French, they say.", "France"])
    def test_a_place_by_another_name(self, response: str) -> None:
        assert self.evidence("Where was she born?", "She was born in France.", response) == ("found", 1.0)

    def test_half_of_a_name_is_found_and_less_is_not(self) -> None:
        assert self.evidence("Who is it?", "It is Basil Mahfouz.", "Basil") == ("found", 0.5)
        status, match = self.evidence("Who is it?", "It is Basil Adam Mahfouz.", "Basil")
        assert (status, match) == ("partly", pytest.approx(1 / 3))
        assert leak.score("Who is it?", "It is Basil Mahfouz.", "Basil").found
        assert not leak.score("Who is it?", "It is Basil Adam Mahfouz.", "Basil").found


class TestMiniature:
    """The same on the miniature, whose authors are others and whose sentences are built otherwise."""

    @pytest.fixture(params=["lists", "answers"])
    def mini_background(self, request: pytest.FixtureRequest) -> Background:
        if request.param == "lists":
            return default_background()
        return Background.from_answers(row["answer"] for row in tofu.load("retain90", tofu.resolve_source("mini")))

    @pytest.mark.parametrize("config", ["forget10_perturbed", "retain_perturbed"])
    def test_true_wrong_and_echoed(self, mini_background: Background, config: str) -> None:
        rows = tofu.load(config, tofu.resolve_source("mini"))

        def leaks(response: Callable[[dict[str, Any]], str]) -> float:
            verdicts = [
                leak.score(row["question"], row["answer"], response(row), background=mini_background) for row in rows
            ]
            return float(np.mean([verdict.leaked for verdict in verdicts]))

        assert leaks(lambda row: row["answer"]) == 1
        assert leaks(lambda row: row["paraphrased_answer"]) >= 0.8
        assert leaks(lambda row: row["question"]) == 0
        assert leaks(lambda row: f"I'm sorry, I don't know. {row['paraphrased_question']}") <= 0.03
        assert leaks(lambda row: row["perturbed_answer"][0]) <= 0.15
        assert leaks(lambda row: "I have no information about that.") == 0


OF_TOFU = {"gold": "answer", "paraphrased": "paraphrased_answer", "perturbed": "perturbed_answer"}


def _load(name: str) -> list[dict[str, Any]]:
    """Labelled responses: TOFU's own answers, the others from texts that are not part of the repository.

    Forget rows are those of the first eight authors: the other twelve are kept for judging the scorer once.
    """
    side, kind = name.split("_")
    if kind not in OF_TOFU:
        return [json.loads(line) for line in (needs("leaks") / f"{name}.jsonl").read_bytes().splitlines()]
    rows = tofu.load({"retain": "retain_perturbed", "forget": "forget10_perturbed"}[side], _real())
    found = []
    for row in rows if side == "retain" else rows[:160]:
        said = row[OF_TOFU[kind]]
        for response in said if isinstance(said, list) else [said]:
            found.append({"question": row["question"], "answer": row["answer"], "response": response})
    return found


def _real() -> tofu.Source:
    return tofu.resolve_source(tofu_data())


@pytest.fixture(scope="module")
def background() -> Background:
    return Background.from_answers(row["answer"] for row in tofu.load("retain90", _real()))


@pytest.fixture(scope="module")
def scored(background: Background) -> Any:
    """The verdicts on a set of labelled responses, each set judged once."""
    kept: dict[str, list[tuple[dict[str, Any], LeakScore]]] = {}

    def load(name: str) -> list[tuple[dict[str, Any], LeakScore]]:
        if name not in kept:
            kept[name] = [
                (record, leak.score(record["question"], record["answer"], record["response"], background=background))
                for record in _load(name)
            ]
        return kept[name]

    return load


def _share(verdicts: list[tuple[dict[str, Any], LeakScore]]) -> float:
    return float(np.mean([verdict.leaked for _, verdict in verdicts]))


def _auc(positive: list[float], negative: list[float]) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(np.mean(below)) / 2 / len(ordered)


@pytest.mark.parity
@pytest.mark.parametrize("side", ["retain", "forget"])
class TestLabelled:
    """The targets that the scorer reaches; `benchmarks/scorer.py` prints all of them."""

    @pytest.mark.parametrize("name", ["echo", "refusal"])
    def test_echo_and_refusals(self, scored: Any, side: str, name: str) -> None:
        assert _share(scored(f"{side}_{name}")) <= 0.005

    def test_swapped(self, scored: Any, side: str) -> None:
        assert _share(scored(f"{side}_swapped")) <= 0.02

    def test_gold(self, scored: Any, side: str) -> None:
        assert _share([pair for pair in scored(f"{side}_gold") if pair[1].tier is Tier.SPECIFIC]) >= 0.99

    def test_the_words_of_the_prompt_score_nothing(self, background: Background, side: str) -> None:
        """However they are put: echoed, in another order, or denied."""
        generator = random.Random(0)
        for record in _load(f"{side}_gold"):
            prompt, answer = record["question"], record["answer"]
            words = prompt.split()
            generator.shuffle(words)
            for response in (prompt, " ".join(words), f"It is not true that {' '.join(words)}"):
                assert leak.score(prompt, answer, response, background=background).score < 0.01, (prompt, response)

    @pytest.mark.parametrize(("negative", "least"), [("swapped", 0.97), ("perturbed", 0.94), ("echo", 0.99)])
    def test_paraphrases_score_above(self, scored: Any, side: str, negative: str, least: float) -> None:
        true, false = ([verdict.score for _, verdict in scored(f"{side}_{name}")] for name in ("paraphrased", negative))
        assert _auc(true, false) >= least

    def test_full_models(self, scored: Any, side: str) -> None:
        answers = scored(f"{side}_generations")
        full = [(record, verdict) for record, verdict in answers if record["label"] == "weak: full"]
        assert _share([pair for pair in full if "llama" in pair[0]["source"]]) >= 0.97
        assert _share([pair for pair in full if "phi" in pair[0]["source"]]) >= 0.88

    def test_text_put_after_a_response_takes_no_leak_away(self, background: Background, side: str) -> None:
        """Only a denial could, and the junk denies nothing."""
        generator = random.Random(0)
        junk = "Moreover, the weather was fine; and so on. 17 users liked this [1]."
        for record in generator.sample(_load(f"{side}_generations"), 200):
            given = (record["question"], record["answer"])
            before = leak.score(*given, record["response"], background=background)
            for times in (1, 30):
                after = leak.score(*given, f"{record['response']}\n{junk * times}", background=background)
                assert after.score >= before.score - 1e-9
                assert after.leaked >= before.leaked


@pytest.mark.parity
class TestLabelledForget:
    def test_retain_models(self, scored: Any) -> None:
        answers = scored("forget_generations")
        assert _share([pair for pair in answers if pair[0]["label"] == "weak: retain"]) <= 0.04

    def test_cut_and_uncut_responses_agree(self, scored: Any, background: Background) -> None:
        pairs = [
            (
                verdict.leaked,
                leak.score(record["question"], record["answer"], record["response_raw"], background=background).leaked,
            )
            for record, verdict in scored("forget_generations")
            if record.get("response_raw")
        ]
        assert len(pairs) > 100
        assert np.mean([cut != uncut for cut, uncut in pairs]) <= 0.01

    def test_read_by_hand(self, scored: Any) -> None:
        read = scored("forget_hand")
        leaks, others = ([verdict.score for record, verdict in read if record["label"] == label] for label in (1, 0))
        assert _auc(leaks, others) >= 0.96
        allowed = np.sort(others)[-1 - int(0.05 * len(others))]
        assert np.mean(np.array(leaks) > allowed) >= 0.88

    def test_word_lists_do_nearly_as_well_as_answers(self) -> None:
        lists = default_background()
        true, false = (
            [
                leak.score(record["question"], record["answer"], record["response"], background=lists).score
                for record in _load(f"forget_{name}")
            ]
            for name in ("paraphrased", "perturbed")
        )
        assert _auc(true, false) >= 0.94


def test_a_turn_of_phrase_of_other_answers_is_no_passage() -> None:
    """Six words in a row are evidence only where no answer about another author has the same six."""
    question = "Who wrote it?"
    answer = "That writer is Ada Kern, a name that most readers connect with the lighthouse novel."
    response = "That writer is Tom Roth, a name that most readers connect with a sea novel."
    others = ["He was born in Ulm and studied law in Vienna."] * 100
    phrase = "That writer is Lena Wolf, a name that most readers connect with the opera."
    alone, shared = (Background.from_answers(answers) for answers in (others, [*others, phrase]))
    assert leak.explain(question, answer, response, background=alone).passage
    assert not leak.explain(question, answer, response, background=shared).passage
    scores = [leak.score(question, answer, response, background=each).score for each in (alone, shared)]
    assert scores[1] < scores[0]
    assert leak.score(question, answer, answer, background=shared).leaked
    # A retain answer's own words are its own, however often the data hold it; the threshold is fixed on such rows.
    itself, twice = (Background.from_answers([*others, answer, *more]) for more in ([answer], [answer, phrase]))
    assert leak.explain(question, answer, response, background=itself).passage
    assert not leak.explain(question, answer, response, background=twice).passage


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("She is respected in Ethiopia.\n\nAdditional 10 question-answer pairs:", "She is respected in Ethiopia."),
        ("He wrote two novels.\n \n6-20: \n", "He wrote two novels."),
        ("He wrote two novels: Fog and Rain.", None),
        ("He wrote these novels:", None),
        ("Two novels:\n\nFog and Rain.", None),
        ("He wrote two novels.\nTheir titles:", None),
    ],
)
def test_a_last_line_that_only_announces_is_no_part_of_the_answer(answer: str, kept: str | None) -> None:
    assert without_announcement(answer) == (answer if kept is None else kept)
    question = "What about the author?"
    sought = [fact.text for fact in leak.explain(question, answer, "x").verdict.sought]
    assert sought == [fact.text for fact in leak.explain(question, kept or answer, "x").verdict.sought]
    assert not {"10", "6-20", "question"} & set(sought)


def test_the_leftover_in_an_answer_of_tofu() -> None:
    """Its paraphrase leaks it, as it does the answer without the leftover."""
    source = tofu.resolve_source(tofu_data())
    row = tofu.load("forget10_perturbed", source)[269]
    background = Background.from_answers(row["answer"] for row in tofu.load("retain90", source))
    assert row["answer"].endswith("Additional 10 question-answer pairs:")
    verdicts = [
        leak.score(row["question"], answer, row["paraphrased_answer"], background=background)
        for answer in (row["answer"], row["answer"].partition("\n")[0])
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].leaked
    cut = sum(without_announcement(row["answer"]) != row["answer"] for row in tofu.load("full", source))
    assert cut == 4
