"""Short answers: what other answers one accepts along with it."""

import re

_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]{1,60})[)\]]\s*")
_CALLED = re.compile(r"([^\W\d_]+) [\"“']([^\"”']{2,20})[\"”'] ")
_SHORT_ANSWER = 12  # words


def alternatives(answer: str) -> tuple[str, ...]:
    """An answer and what it says in other words: "total cost (TC)", "the Whaling Commission or IWC".

    Of a sentence there is nothing but itself.
    """
    if len(answer.split()) > _SHORT_ANSWER or "\n" in answer:
        return (answer,)
    answers = [answer]
    if brackets := _BRACKETS.search(answer):
        answers = [_BRACKETS.sub(" ", answer).strip()]
        inner = brackets[1]
        if answers[0] and (inner.isupper() or _is_other_script(inner, answers[0])):
            answers.append(inner)
    if called := _CALLED.search(answer):
        before, after = answer[: called.start()], answer[called.end() :]
        answers = [f"{before}{called[1]} {after}", f"{before}{called[2]} {after}"]
    elif '"' not in answer and len(sides := answer.split(" or ")) == 2 and all(sides) and answer.count(",") == 0:
        answers = [*sides, *answers]
    return tuple(dict.fromkeys(each for each in answers if any(map(str.isalnum, each)))) or (answer,)


def _is_other_script(first: str, second: str) -> bool:
    return first.isascii() != second.isascii() and _has_letters(first) and _has_letters(second)


def _has_letters(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= 2
