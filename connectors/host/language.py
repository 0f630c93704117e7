"""Which language a text is in. Pure; a guess from scripts and common short words, and empty where it is unsure.

Not a translator's tool: it tells languages apart well enough to prefer a model, and costs microseconds.
"""

from __future__ import annotations

import re

CHARS_MAX = 1_000
"""A language shows itself early; more text costs time and changes nothing."""

SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7a3\u1100-\u11ff]"),
    "zh": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
}
DENSE = {"ja": 2.0, "ko": 2.0, "zh": 3.0}
"""Latin letters that say as much as one character of these scripts."""
UKRAINIAN = re.compile(r"[іїєґІЇЄҐ]")

FUNCTION_WORDS = {
    "en": "the a an and of to in is are was it you that this what how do does can could would with for on my me i "
    "please not be have has your from who why which when where will about write give make tell did or if there",
    "de": "der die das und ist nicht ich du sie wir ein eine einen einem zu den dem mit wie was auf für von im bitte "
    "kann kannst mir mein meine warum wo wer auch oder wenn es sind hat haben über mach schreib",
    "fr": "le la les un une des et est pas je tu vous nous il elle que qui quoi dans pour avec sur mon ma mes ce cette "
    "comment pourquoi où du au aux de ne suis sont plus fais écris peux s'il donne quelle quel",
    "es": "el la los las un una y es no yo tú usted que qué en para con por mi mis cómo dónde cuál del al de se está "
    "son más puedes hazme escribe dame quién cuando pero su lo me",
    "it": "il lo gli una e è non io tu che per con sono mi come dove perché della del di nel puoi scrivi più questo",
    "pt": "o os as um uma e é não eu você que para com por meu minha como onde do da em no na está são mais escreva",
    "nl": "de het een en is niet ik je jij wij van voor met op hoe wat waar mijn dat deze kan zijn schrijf maak",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in FUNCTION_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
LETTERS = {"de": re.compile(r"[ßäöüÄÖÜ]"), "es": re.compile(r"[ñ¿¡]"), "fr": re.compile(r"[èêœùû]")}
HITS_MIN = 2
SHARE_MIN = 0.25
"""Of the words, so many are function words in running text."""

_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")


def language_of(text: str) -> str:
    """Two letters such as `en` or `zh`, or nothing where the text does not tell. Fenced code does not count."""
    text = (_FENCE.sub(" ", text) if "```" in text else text)[:CHARS_MAX]
    return ("" if text.isascii() else _by_script(text)) or _by_words(text)


def _by_script(text: str) -> str:
    """The language of the script that most of the text is in; none for Latin letters."""
    counts = {language: len(pattern.findall(text)) for language, pattern in SCRIPTS.items()}
    if counts["ja"] * 8 >= counts["zh"]:  # Japanese is written with Chinese characters too; Chinese has no kana
        counts["ja"] += counts["zh"] if counts["ja"] else 0
    language = max(counts, key=lambda name: counts[name] * DENSE.get(name, 1.0))
    weight = counts[language] * DENSE.get(language, 1.0)
    if not weight or weight < len(_LATIN.findall(text)):
        return ""
    if language == "ru" and UKRAINIAN.search(text):
        return "uk"
    return language


def _by_words(text: str) -> str:
    words = _WORD.findall(text.lower())
    hits = dict.fromkeys(FUNCTION_WORDS, 0)
    for word in words:
        for language in _LANGUAGES_OF.get(word, ()):
            hits[language] += 1
    if not text.isascii():
        for language, pattern in LETTERS.items():
            hits[language] += len(pattern.findall(text))
    first, second = sorted(hits, key=lambda name: -hits[name])[:2]
    if hits[first] < max(HITS_MIN, SHARE_MIN * len(words)) or hits[first] < 1.5 * hits[second]:
        return ""
    return first
