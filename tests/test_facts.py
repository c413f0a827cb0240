"""The novel facts of a row: what counts as one, of which kind, and what the prompt has said already."""

import pytest
from conftest import tofu_data

from lm_eval_tofu import tofu
from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import cut, leak, words
from lm_eval_tofu.metrics.background import Background, default_background
from lm_eval_tofu.metrics.dates import Date, date_agreement, find_dates
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.kinds import BASE_WEIGHTS, Kind, Tier
from lm_eval_tofu.metrics.lexicon import LIST_FILE, lexicon
from lm_eval_tofu.metrics.polarity import read
from lm_eval_tofu.metrics.reader import find_facts


def _of(kind: Kind, prompt: str, answer: str) -> list[str]:
    return [fact.text for fact in find_facts(prompt, answer).facts if fact.kind is kind]


def _fact(prompt: str, answer: str, text: str) -> Fact:
    (fact,) = [fact for fact in find_facts(prompt, answer).facts if fact.text == text]
    return fact


class TestWords:
    @pytest.mark.parametrize(
        "family",
        [
            "receive received receiving receives",
            "illustrate illustrated illustration illustrator illustrators",
            "explore exploration explorer explores",
            "narrate narration narrative narrator",
            "biology biologist biological",
            "mystery mysterious mysteries",
            "write wrote written writer writing",
            "culture cultural culturally",
            "politics political",
            "study studied studies studying",
            "we we've we're we'd",
            "22nd twenty-second",
        ],
    )
    def test_a_family_has_one_stem(self, family: str) -> None:
        assert len({stem for word in family.split() for stem in words.stems(word)}) == 1

    @pytest.mark.parametrize(
        "pair",
        [
            "music musicians",
            "politics politician",
            "note not",
            "noted not",
            "knot not",
            "author authentic",
            "barber bar",
            "nun none",
        ],
    )
    def test_others_have_not(self, pair: str) -> None:
        first, second = pair.split()
        assert words.stem(first) != words.stem(second)

    @pytest.mark.parametrize("pair", ["optics opticians", "political politician", "diet dietician"])
    def test_who_practises_a_field(self, pair: str) -> None:
        """Another word, so that a field does not state an occupation; but a prompt that names the field suggests it."""
        field, occupation = pair.split()
        assert words.practitioner(words.stem(field)) == words.stem(occupation)
        assert not leak.score("What did he do?", f"He was a {occupation}.", f"He liked {field}.").found
        assert not leak.score(
            f"He liked {field}. What did he do?", f"He was a {occupation}.", f"A {occupation}."
        ).leaked

    def test_numbers_are_values(self) -> None:
        assert words.stem("5") == words.stem("five") == "#5"
        assert words.stem("1,200") == "#1200"
        assert words.stems("twenty-five") == {"#25"}

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("two hundred and 200", "#200 and #200"),
            ("2 million, 2,000,000", "#2000000 #2000000"),
            ("1.5 million", "#1500000"),
            ("a hundred and five, or 105", "a #105 or #105"),
            ("two hundred and fifty-three thousand and one", "#253001"),
            ("one hundred and two hundred", "#100 and #200"),
            ("five thousand two million", "#5000 #2000000"),
            ("two million, three of them", "#2000000 #3 of them"),
            ("nineteen fifty-six", "#19 #56"),
            ("one of 12 25", "#1 of #12 #25"),
            ("1.75 and 1.750, not 1 or 75", "#1.75 and #1.75 not #1 or #75"),
            ("third, 3rd, 3", "3th 3th #3"),
            ("the twenty-first, 21st", "the 21th 21th"),
            ("1990s", "1990s"),
        ],
    )
    def test_a_number_is_one_however_it_is_written(self, text: str, values: str) -> None:
        assert words.stem_list(text) == values.split()
        assert [words.stem(token) for token, _, _ in words.token_spans(text)] == values.split()

    def test_a_number_of_several_words_stands_where_they_do(self) -> None:
        assert words.token_spans("sold two hundred copies") == [("sold", 0, 4), ("200", 5, 16), ("copies", 17, 23)]

    def test_folding(self) -> None:
        assert words.fold("José “Pepe” D’Angelo — ÉTÉ") == 'jose "pepe" d\'angelo - ete'
        assert words.tokens(words.fold("it\x00is\x1b[31m new‮")) == ["it", "is", "new"]
        assert words.stem("didn't") == words.stem("not")
        assert words.stem("o'brien's") != "not"

    @pytest.mark.parametrize(
        "text",
        [
            "'The Barber's Moon', a novel",
            "o'brien's sons' books",
            "it's; isn't -- 'tis",
            "well-known\x00_word_",
            "' ''",
            "",
        ],
    )
    def test_the_short_way_to_stems_is_the_long_way(self, text: str) -> None:
        """Plain ASCII without digits is cut up as bytes, all else by a pattern: a digit at the end switches."""
        assert words.stems(text.lower()) - {""} == words.stems(f"{text.lower()} 7") - {"#7"}

    def test_places_lead_back_to_the_text(self) -> None:
        """The letter fi in one folds to two letters and é to one, so that folded places run ahead of the text's."""
        text = "ﬁné ﬁsh"
        origin = words.places(text)
        assert words.fold(text) == "fine fish"
        assert [text[origin[start] : origin[end]] for _, start, end in words.token_spans(words.fold(text))] == [
            "ﬁné",
            "ﬁsh",
        ]

    def test_an_endless_token_costs_no_memory(self) -> None:
        assert len(words.stem("x" * 100_000)) == 40


class TestDates:
    @pytest.mark.parametrize(
        "text",
        [
            "12 March 1956",
            "12th of March, 1956",
            "the 12th day of March in the year 1956",
            "twelfth March 1956",
            "March 12, 1956",
            "March 12th 1956",
            "March the twelfth, 1956",
            "Mar. 12, 1956",
            "1956-03-12",
            "1956/3/12",
        ],
    )
    def test_one_date_in_many_forms(self, text: str) -> None:
        (mention,) = find_dates(f"she was born on {text.lower()}.")
        assert mention.meanings == (Date(1956, 3, 12),)

    def test_a_date_with_two_meanings(self) -> None:
        (mention,) = find_dates("born on 08/09/1956")
        assert set(mention.meanings) == {Date(1956, 8, 9), Date(1956, 9, 8)}

    def test_a_day_above_twelve_settles_it(self) -> None:
        assert find_dates("07/25/1941")[0].meanings == find_dates("25.07.1941")[0].meanings == (Date(1941, 7, 25),)

    def test_days_in_words_with_a_space_or_a_hyphen(self) -> None:
        for text in ("the twenty first of march 1956", "the twenty-first of march 1956", "21 march 1956"):
            assert find_dates(text)[0].meanings == (Date(1956, 3, 21),)

    def test_the_last_day_and_the_last_month(self) -> None:
        assert (
            find_dates("31/12/1956")[0].meanings == find_dates("31 december 1956")[0].meanings == (Date(1956, 12, 31),)
        )
        assert find_dates("32 december 1956")[0].meanings == (Date(1956, 12, 0),)
        assert [mention.meanings for mention in find_dates("13/14/1956")] == [(Date(1956, 0, 0),)]
        assert [mention.meanings for mention in find_dates("13/13/1956")] == [(Date(1956, 0, 0),)]

    def test_parts_of_dates(self) -> None:
        assert find_dates("in may 1999, then 2001")[0].meanings == (Date(1999, 5, 0),)
        assert [mention.meanings for mention in find_dates("in may 1999, then 2001")][1] == (Date(2001, 0, 0),)
        assert find_dates("it may be 12 of them") == []

    def test_date_agreement(self) -> None:
        sought = Date(1956, 3, 12)
        assert date_agreement(sought, sought) == 1
        assert date_agreement(Date(1956, 0, 0), sought) == 1  # the year is all that was sought
        assert date_agreement(Date(1956, 0, 0), Date(0, 3, 12)) == 0
        assert date_agreement(sought, Date(1957, 3, 12)) == date_agreement(sought, Date(1956, 4, 12)) == 0
        assert 0 < date_agreement(sought, Date(1956, 0, 0)) < date_agreement(sought, Date(0, 3, 12)) < 1
        assert 0 < date_agreement(sought, Date(1956, 3, 13)) <= 0.5  # the right month of the right year is no chance


class TestPolarity:
    def _denied(self, text: str) -> set[str]:
        return {word.stem for word in read(text) if word.denied}

    def test_a_negation_reaches_to_the_end_of_its_clause(self) -> None:
        denied = self._denied("he was not a barber, he was a pilot")
        assert "barber" in denied
        assert "pilot" not in denied

    def test_ignorance_reaches_to_the_end_of_its_sentence(self) -> None:
        assert "lima" in self._denied("i don't know whether she was born in quito, cusco or lima.")
        assert "lima" not in self._denied("i don't know much, but she was born in lima.")
        assert "lima" not in self._denied("i don't know. she was born in lima.")

    def test_ignorance_is_spoken_of_within_three_words(self) -> None:
        assert "lima" in self._denied("she does not really seem to know it, nor lima.")
        assert "lima" not in self._denied("she was not one whom many seem to know, but of lima.")
        assert "lima" not in self._denied("she was not one whom many seem to know, of lima.")

    def test_an_exception_ends_a_denial(self) -> None:
        assert "lima" not in self._denied("she saw nothing except for lima")
        assert "lima" not in self._denied("she knew nothing except that lima was large")
        assert "lima" in self._denied("it was not an exceptional place for lima")

    def test_what_denies_nothing(self) -> None:
        assert "barber" not in self._denied("he was not only a barber")
        assert "jara" not in self._denied("it is none other than jara")
        assert self._denied("a noted barber") == set()
        assert self._denied("the houses that said no to it were no fewer than 25") == set()

    def test_a_denied_subject(self) -> None:
        assert "lima" in self._denied("lima is not where she lives")

    def test_has_yet_to(self) -> None:
        assert "oscar" in self._denied("she has yet to win an oscar")


class TestFacts:
    PROMPT = "Who are the parents of Ana Ruiz from Santiago, Chile?"

    def test_names_without_what_the_prompt_says(self) -> None:
        answer = "Her father is Lorenzo Ruiz and her mother, Ana Ruiz's hero, is Sofía Vega."
        assert _of(Kind.NAME, self.PROMPT, answer) == ["Lorenzo Ruiz", "Sofia Vega"]
        assert [part for part, _ in _fact(self.PROMPT, answer, "Lorenzo Ruiz").parts] == [words.stem("lorenzo")]

    def test_the_authors_own_name_completed_weighs_little(self) -> None:
        assert _fact("What has Ruiz written?", "It was Ana Ruiz who wrote it.", "Ana Ruiz").weight < 0.3
        assert _fact("What has Al-Ruiz written?", "Much. Ana Al-Ruiz is busy.", "Ana Al-Ruiz").weight < 0.3
        assert _fact("What has Eva Ruiz's mother written?", "It was Ana Ruiz who wrote it.", "Ana Ruiz").weight > 0.8

    def test_a_slip_in_a_name_is_no_name(self) -> None:
        assert _of(Kind.NAME, "Where was Jaime Ruiz born?", "He, Jamie Ruiz, was born at home.") == []

    def test_titles_in_any_quotes(self) -> None:
        for left, right in ('""', "“”", "''", "‘’", "«»"):
            answer = f"She wrote {left}The Barber’s Moon{right}, among others."
            assert [
                fact.text for fact in find_facts("What did she write?", answer).facts if fact.kind is Kind.TITLE
            ] == ["The Barber's Moon"]

    def test_a_title_that_the_prompt_names(self) -> None:
        assert _of(Kind.TITLE, 'When did "The Barber\'s Moon" appear?', "'The Barber's Moon' appeared late.") == []

    def test_an_award(self) -> None:
        answer = "Winning the Edgar Poe Award for Best Crime made her proud."
        assert _of(Kind.NAME, "Has she won anything?", answer) == ["Edgar Poe Award for Best Crime"]

    def test_dates_are_compared_as_values(self) -> None:
        assert _of(Kind.DATE, "Was she born on 12 March 1956?", "Yes, on March 12th, 1956.") == []
        assert _of(Kind.DATE, "Was she born in 1957?", "No, on March 12th, 1956.") == ["March 12th, 1956"]

    def test_numbers(self) -> None:
        assert _of(Kind.NUMBER, "How many novels?", "She wrote twelve novels and one play.") == ["twelve"]
        assert _of(Kind.NUMBER, "Did she write 12 novels?", "She wrote twelve novels.") == []
        assert _of(Kind.NUMBER, "How many copies?", "She sold two hundred, at 1.75 each.") == ["two hundred", "1.75"]
        assert _of(Kind.NUMBER, "Did she sell 2,000,000 copies?", "She sold 2 million copies.") == []
        assert _of(Kind.NUMBER, "Which one?", "The twenty-first.") == []  # content, as "first"
        assert _of(Kind.TERM, "Which one?", "The twenty-first.") == ["twenty-first"]
        assert find_facts("Is it the 21st?", "The twenty-first.").facts == ()

    def test_occupations(self) -> None:
        answer = "Her father was a marine biologist and her mother an Environmental Scientist."
        assert _of(Kind.OCCUPATION, self.PROMPT, answer) == ["Environmental Scientist", "marine biologist"]

    def test_an_occupation_that_the_prompt_says_in_another_word(self) -> None:
        assert _of(Kind.OCCUPATION, "Did her father, a lawyer, read?", "The attorney did.") == []

    def test_what_is_derived_from_an_occupation_is_none(self) -> None:
        assert _of(Kind.OCCUPATION, "What did she do?", "Her novel drew on natural exploration.") == []

    def test_forms_of_the_verb_and_figures_of_speech_are_no_occupations(self) -> None:
        answer = "She wrote what she has written as a role model, and a Writer."
        assert _of(Kind.OCCUPATION, "What did she do?", answer) == ["Writer"]

    def test_genres_where_genres_are_spoken_of(self) -> None:
        assert _of(Kind.GENRE, "What does she write?", "She writes horror stories.") == ["horror"]
        assert _of(Kind.GENRE, "What does she write?", "She works in the genre of horror.") == ["horror"]
        assert _of(Kind.GENRE, "What does she write?", "She dwells on the horror that war brings.") == []
        assert _of(Kind.GENRE, "What does she write?", "She is into magical realism.") == ["magical realism"]

    def test_genres_are_spoken_of_two_words_after_or_three_before(self) -> None:
        assert _of(Kind.GENRE, "What does she write?", "She likes the horror of stories.") == ["horror"]
        assert _of(Kind.GENRE, "What does she write?", "She felt the horror of long stories.") == []
        assert _of(Kind.GENRE, "What does she write?", "Hers is the genre of pure horror.") == ["horror"]
        assert _of(Kind.GENRE, "What does she write?", "The genre she likes is horror, often.") == []

    def test_the_first_word_of_a_sentence_is_no_name(self) -> None:
        answer = "Gardening fills her days. Painting too, says Ruiz."
        assert _of(Kind.NAME, "What does she do?", answer) == ["Ruiz"]

    def test_places_and_demonyms(self) -> None:
        assert _of(Kind.PLACE, "Where was she born?", "In Lagos, Nigeria.") == ["Lagos", "Nigeria"]
        assert _of(Kind.PLACE, "How did Nigeria shape her?", "By Nigerian tales.") == []
        assert _of(Kind.PLACE, "How did her Nigerian youth shape her?", "Nigeria taught her.") == []

    def test_a_name_like_a_place_is_no_more_than_the_place(self) -> None:
        prompt = "How has the style of Ana changed?"
        (fact,) = find_facts(prompt, "With time Irani's plots grew.").facts[:1]
        assert fact.kind is Kind.PLACE
        assert frozenset([words.stem("iran")]) in fact.aliases
        assert _of(Kind.PLACE, prompt, "She met a Podiatrist in San Francisco.") == ["San Francisco"]
        assert _of(Kind.PLACE, prompt, "She left the University in Havana.") == ["Havana"]

    def test_inflections_of_what_was_shown(self) -> None:
        shown, answer = "How does she explore cultures?", "Her exploration is cultural and explores rivers."
        assert _of(Kind.TERM, shown, answer) == ["rivers"]

    def test_pronouns_are_no_facts_and_yes_and_no_are_a_guess(self) -> None:
        assert find_facts("Who won?", "She has.")[:2] == ((), Tier.NONE)
        found = find_facts("Has she won?", "Yes, she has.")
        assert ([fact.kind for fact in found.facts], found.tier, found.chance) == ([Kind.CHOICE], Tier.GUESSABLE, 0.5)

    def test_what_the_answer_denies_is_marked(self) -> None:
        found = find_facts("Has she won?", 'She has not won the Booker Prize, but "Seas" sold well.').facts
        assert {fact.text: fact.denied for fact in found if fact.kind is not Kind.CONTENT} == {
            "Booker Prize": True,
            "Seas": False,
        }

    def test_a_name_that_the_text_ends_in(self) -> None:
        assert _of(Kind.NAME, "Who?", "It is Ana Ruiz of") == ["Ana Ruiz"]

    def test_a_repeated_fact_counts_once(self) -> None:
        assert _of(Kind.NAME, "Who?", "It is Ana Ruiz. I say: Ana Ruiz.") == ["Ana Ruiz"]

    def test_facts_are_frozen(self) -> None:
        fact = _fact("Where?", "In Lagos.", "Lagos")
        with pytest.raises(AttributeError):
            fact.weight = 1.0


class TestTiers:
    def test_specific(self) -> None:
        assert find_facts("When was Ana born?", "Ana was born on 12 March 1956.").tier is Tier.SPECIFIC
        assert find_facts("What does Ana write?", "Ana writes in the thriller genre.").tier is Tier.SPECIFIC

    def test_gist(self) -> None:
        answer = "Her stories turn on rivers, tides and the slow decay of harbours in winter fog."
        assert find_facts("How does Ana write?", answer).tier is Tier.GIST

    def test_none(self) -> None:
        assert find_facts("What is the occupation of Ana?", "Ana is a celebrated author.").tier is Tier.NONE
        assert find_facts("Ana lives in Lima.", "Ana lives in Lima.").tier is Tier.NONE

    @pytest.mark.parametrize(
        "answer",
        [
            "Details of her schooling, her early travels and her first poems have not been disclosed.",
            "How she came to rivers, tides, harbours and winter fog remains unknown.",
            "There is no information about her rivers, tides, harbours and winter fog.",
        ],
    )
    def test_an_answer_that_nothing_is_known(self, answer: str) -> None:
        assert find_facts("Ana?", answer).tier is Tier.NONE


class TestBackground:
    def test_weight_falls_with_the_share_of_answers(self) -> None:
        """A word in half of the answers says nothing, one in a single answer of 1,000 all it can."""
        answers = [f"word{number % 20} tide" if number % 2 else "moon" for number in range(999)] + ["quartz"]
        background = Background.from_answers(answers)
        assert background.weight(words.stem("moon")) == pytest.approx(0.02)
        assert background.weight(words.stem("quartz")) == 1
        assert background.weight("unseen") == 1

    def test_too_few_answers(self) -> None:
        with pytest.raises(OptionError, match="99 answers"):
            Background.from_answers(["a word"] * 99)

    def test_frame_words_weigh_less_without_answers_too(self) -> None:
        weights = {
            fact.text: fact.weight
            for fact in find_facts("Ana?", "her mother writes of quartz, of slate, of tides, of winds").facts
        }
        assert weights["mother"] < weights["quartz"]

    def test_boilerplate_weighs_less_than_facts(self) -> None:
        background = default_background()
        assert background.weight(words.stem("prestigious")) < background.weight(words.stem("lighthouse"))


class TestLists:
    def test_size_and_sections(self) -> None:
        assert LIST_FILE.stat().st_size < 5_000_000
        lists = lexicon()
        for table in (lists.synonyms, lists.occupations, lists.genres, lists.places):
            assert len(table) > 50

    def test_synonyms_are_mutual_and_never_themselves(self) -> None:
        synonyms = lexicon().synonyms
        for word, others in synonyms.items():
            assert word not in others
            assert all(word in synonyms[other] for other in others)

    def test_a_parent_is_not_the_other_parent(self) -> None:
        synonyms = lexicon().synonyms
        assert words.stem("father") not in synonyms[words.stem("mother")]

    def test_no_occupation_stands_for_an_unrelated_one(self) -> None:
        aliases = lexicon().occupations[("barber",)]
        assert (words.stem("hairdresser"),) in aliases
        assert (words.stem("pilot"),) not in aliases


class TestData:
    @pytest.mark.parametrize("config", ["forget10", "retain90"])
    def test_miniature(self, config: str) -> None:
        """Every row of the miniature has a tier, and most say something specific."""
        rows = tofu.load(config, tofu.resolve_source("mini"))
        tiers = [find_facts(row["question"], row["answer"]).tier for row in rows]
        assert tiers.count(Tier.SPECIFIC) > len(rows) / 2

    @pytest.mark.parity
    def test_retain_rows(self) -> None:
        """The tiers of 400 retain rows: most specific, some gist, few nothing; and no fact that the prompt shows."""
        rows = tofu.load("retain_perturbed", tofu.resolve_source(tofu_data()))
        tiers = []
        for row in rows:
            found, tier, *_ = find_facts(row["question"], row["answer"])
            shown = words.stems(words.fold(row["question"]))
            assert not shown & {part for fact in found for part, _ in fact.parts}
            assert all(0 < fact.weight <= 1 for fact in found)
            tiers.append(tier)
        assert 0.55 < tiers.count(Tier.SPECIFIC) / len(rows) < 0.75
        assert tiers.count(Tier.NONE) / len(rows) < 0.15


class TestCut:
    """Where an answer begins to give something away."""

    ANSWER = "She is an author and a beekeeper, born in 1956; a friend of Basil Mahfouz."

    def test_telling_is_more_than_a_word_of_content_can_be(self) -> None:
        least = BASE_WEIGHTS[Kind.CONTENT]
        assert cut.is_telling(Fact(Kind.NAME, "Basil", least + 0.01))
        assert not cut.is_telling(Fact(Kind.NAME, "Basil", least))
        assert not cut.is_telling(Fact(Kind.CONTENT, "rivers", 1.0))

    def test_facts_come_in_the_order_of_the_answer(self) -> None:
        located = cut.telling_facts("What is she?", self.ANSWER, default_background())
        assert [(each.fact.text, self.ANSWER[each.start :].startswith(each.fact.text)) for each in located] == [
            ("beekeeper", True),
            ("1956", True),
            ("Basil Mahfouz", True),
        ]

    def test_what_is_rare_depends_on_the_other_answers(self) -> None:
        """Where every other answer speaks of authors, the word is no fact; where none does, it is."""
        common = Background.from_answers(["He is an author."] * 100)
        rare = Background.from_answers(["Nothing is known."] * 100)
        for background, beginning in ((common, "She is an author and a"), (rare, "She is an")):
            assert cut.first_fact("What is she?", self.ANSWER, background) == len(beginning)
            [first, *_] = cut.telling_facts("What is she?", self.ANSWER, background)
            assert self.ANSWER[: first.start].rstrip() == beginning

    def test_an_answer_without_a_fact_or_with_nothing_else(self) -> None:
        assert cut.first_fact("What is he?", "He is what he is.", default_background()) is None
        assert cut.first_fact("Who wrote it?", "Basil Mahfouz.", default_background()) == 0
