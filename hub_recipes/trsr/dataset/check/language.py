"""Guess the language of texts cheaply, by their script and, for Latin script, their stop words. It is only a hint."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

# ISO 639 code -> first words of the Unicode names of its letters. Other languages are not guessed.
SCRIPTS = {
    **dict.fromkeys("ru uk bg sr mk be".split(), ("CYRILLIC",)),
    **dict.fromkeys("ar fa ur".split(), ("ARABIC",)),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "th": ("THAI",),
    "ko": ("HANGUL",),
    "zh": ("CJK",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"),
}
STOP_WORDS = {
    "en": "the and of to a in is for with on".split(),
    "de": "der die das und ein mit für von den nicht".split(),
    "fr": "le la les et des du une pour dans avec".split(),
    "es": "el los las y del una para con por que".split(),
    "it": "il gli di che una per con del della nel".split(),
    "pt": "o os as e do da uma para com não".split(),
    "nl": "de het een en van voor met niet op bij".split(),
}
ENOUGH = 200  # smallest number of letters, and of ten times the stop words, for a guess


def guess(texts: Iterable[str]) -> tuple[str, ...]:
    """ISO 639 codes of languages that the texts may be in, likeliest first; none if there is too little text."""
    lowered = [text.lower() for text in texts]
    letters = Counter(_script(char) for text in lowered for char in text if char.isalpha())
    if letters.total() < ENOUGH:
        return ()
    script, _ = letters.most_common(1)[0]
    if script in ("HIRAGANA", "KATAKANA") or (script == "CJK" and letters["HIRAGANA"] * 10 > letters["CJK"]):
        return ("ja",)
    if script != "LATIN":
        return tuple(code for code, scripts in SCRIPTS.items() if scripts[0] == script)
    word_counts = Counter(word for text in lowered for word in text.split())
    hits = {code: sum(word_counts[word] for word in words) for code, words in STOP_WORDS.items()}
    best = max(hits, key=lambda code: hits[code])
    # Related languages share stop words: only a clear lead counts.
    rivals = [code for code, count in hits.items() if 2 * count > hits[best]]
    return tuple(sorted(rivals, key=lambda code: -hits[code])) if hits[best] * 10 >= ENOUGH else ()


def disagrees(declared: Iterable[str], guessed: tuple[str, ...]) -> bool:
    """Whether a guess contradicts the declared languages; never if one of them cannot be guessed."""
    codes = {code.lower().split("-")[0].split("_")[0] for code in declared}
    judged = codes & (SCRIPTS.keys() | STOP_WORDS.keys())
    return bool(guessed) and judged == codes and not codes & set(guessed)


def _script(char: str) -> str:
    return unicodedata.name(char, "").split(" ")[0].split("-")[0]
