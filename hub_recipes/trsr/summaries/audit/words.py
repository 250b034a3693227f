"""A text as words, for asking whether another text says the same.

Words are runs of letters and digits without case or a plural's s; languages that put no spaces between words are not
measured by them. Knows nothing of items or summaries.
"""

import re
from dataclasses import dataclass

from trsr.core.extractive import STOP_WORDS
from trsr.dataset.check.language import STOP_WORDS as STOP_WORDS_BY_LANGUAGE

GRAM = 4  # words
_WORD = re.compile(r"[^\W_]+")
_SHORT = (
    "all and any are but can did for get got had has her him his how its may nor not now off one our out own per she "
    "the too two was way who why yes yet you aren couldn didn doesn don hadn hasn isn shouldn wasn weren won wouldn"
).split()


@dataclass(frozen=True, slots=True)
class Words:
    """One text.

    Attributes:
        line: All its words in order, a space before and after each.
        content: Words of three letters or more that are neither numbers nor stop words.
        grams: Runs of four words.
    """

    line: str
    content: frozenset[str]
    grams: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Words":
        words = [stem(word) for word in _WORD.findall(text.casefold())]
        content = frozenset(word for word in words if len(word) > 2 and word.isalpha() and word not in _STOP)
        grams = frozenset(" ".join(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1))
        return cls(f" {' '.join(words)} ", content, grams)

    def says(self, other: "Words") -> bool:
        """Whether all of `other` stands in this text, word for word."""
        return bool(other.line.strip()) and other.line in self.line


def stem(word: str) -> str:
    """A lower-case word without the s of its plural.

    Reference:
        The S-stemmer of Harman, How effective is suffixing? (JASIS 42(1), 1991).
    """
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return f"{word[:-3]}y"
    return word if word.endswith(("aes", "ees", "oes")) else word[:-1]


_STOP = frozenset(stem(word) for words in (STOP_WORDS, _SHORT, *STOP_WORDS_BY_LANGUAGE.values()) for word in words)
