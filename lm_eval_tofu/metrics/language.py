"""Which language a response is in, as far as the leak scorer must know: what it compares depends on it.

Names, numbers, dates and other values are compared in any language; synonyms, inflections and negations in English only
(negations in German, French and Spanish too). By the letters, and by the commonest small words.
"""

import unicodedata
from collections import Counter

from lm_eval_tofu.metrics.words import fold, listed, tokens

_SMALL_WORDS = {
    "en": "the of and to in is was that it he she for on with his her as are at by this from had not but they",
    "de": "der die das und ist war nicht ein eine einen dem den des von mit sich auf fur im zu er sie es als auch",
    "fr": "le la les et est etait un une des du de que qui dans pour pas sur il elle au avec son sa ne ce plus",
    "es": "el la los las y es era un una de del que en no por con su para se al lo como mas fue esta",
    "it": "il lo la gli e era un una di del della che in non per con si al dal nel sono piu come suo",
    "pt": "o a os as e era um uma de do da que em nao por com se para ao no na como mais foi seu",
    "nl": "de het een en van is was niet dat in op te voor met zijn die aan er ook als bij door",
}
_SETS = {language: frozenset(listed(words)) for language, words in _SMALL_WORDS.items()}
_SCRIPTS = {
    "CYRILLIC": "ru",
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "ARABIC": "ar",
    "HEBREW": "he",
    "DEVANAGARI": "hi",
    "GREEK": "el",
    "THAI": "th",
}
_LEAST_WORDS = 6
_MARGIN = 2  # more small words than English has, before a text is taken for another language


def language_of(text: str) -> str:
    """The language of a text as a code; `en` where it is too short or too mixed to tell."""
    letters = [char for char in text if char.isalpha()]
    if not text.isascii() and letters:
        scripts = Counter(unicodedata.name(char, "").partition(" ")[0].partition("-")[0] for char in letters)
        if kana := scripts["HIRAGANA"] + scripts["KATAKANA"]:
            scripts["HIRAGANA"] = kana + scripts.pop("CJK", 0)
        (script, count), *_ = scripts.most_common(1)
        if count > len(letters) / 2 and script in _SCRIPTS:
            return _SCRIPTS[script]
    words = tokens(fold(text))
    if len(words) < _LEAST_WORDS:
        return "en"
    counts = {language: sum(word in small for word in words) for language, small in _SETS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] >= counts["en"] + _MARGIN else "en"
