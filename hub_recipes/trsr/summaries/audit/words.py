"""The words of a text, to compare it with other texts.

Words are runs of letters and digits, in lower case and without the s of a plural. Languages without spaces between words are
not measured well. Knows nothing of items or summaries.
"""

import re
from dataclasses import dataclass

from trsr.core.extractive import STOP_WORDS
from trsr.dataset.check.language import STOP_WORDS as STOP_WORDS_BY_LANGUAGE

NGRAM = 4  # words
_WORD = re.compile(r"[^\W_]+")
_SHORT = (
    "all and any are but can did for get got had has her him his how its may nor not now off one our out own per she "
    "the too two was way who why yes yet you aren couldn didn doesn don hadn hasn isn shouldn wasn weren won wouldn"
).split()


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one text.

    Attributes:
        line: All words in order, with a space before and after each.
        content: Words of three letters or more that are neither numbers nor stop words.
        ngrams: Sequences of four words.
    """

    line: str
    content: frozenset[str]
    ngrams: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Words":
        words = [stem(word) for word in _WORD.findall(text.casefold())]
        content = frozenset(word for word in words if len(word) > 2 and word.isalpha() and word not in _STOP)
        ngrams = frozenset(" ".join(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1))
        return cls(f" {' '.join(words)} ", content, ngrams)

    def contains(self, other: "Words") -> bool:
        """Whether this text contains all words of `other` in sequence."""
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
