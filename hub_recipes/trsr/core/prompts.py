"""The ranking prompt, as text, and every prompt as token ids.

Text from outside (items, summaries) stands on lines of its own, each opened by a marker, and is encoded without the
tokenizer's control tokens, so it can neither forge a line nor a role. A ranking prompt is a prefix, shared by all
candidates of a user, and a suffix, one a candidate; its ids are always ids(prefix) + ids(suffix).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import cycle
from typing import Any

from transformers.utils import logging

from .control_tokens import THINKING
from .errors import InputError
from .history import Item, clean, newest

logger = logging.get_logger(__name__)

# What chat templates that name the day take for today, so that a prompt is the same on any day. It is the date that
# Llama 3's own templates fall back to.
TEMPLATE_DATE = "2024-07-26"
_DATE = {"%A": "Friday", "%a": "Fri", "%B": "July", "%b": "Jul", "%d": "26", "%-d": "26", "%m": "07", "%-m": "7"}
_DATE |= {"%Y": "2024", "%y": "24", "%F": TEMPLATE_DATE, "%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM"}
# Stands before a template, in place of what transformers calls so: templates are given plain values only, no functions.
_STRFTIME = "".join(f".replace({directive!r}, {value!r})" for directive, value in _DATE.items())
_STRFTIME = f"{{%- macro strftime_now(format) -%}}{{{{- format{_STRFTIME} -}}}}{{%- endmacro %}}\n"


@dataclass(frozen=True, slots=True)
class RankingPrompt:
    """The question put for each candidate, and its answer words. Travels with the adapter.

    Attributes:
        recent_items: How many of the newest items are shown beside the summary (the paper finds 3 best, its code uses 5).
        max_tokens: Longest prompt in tokens; 0 means as long as the model's context.
        field_words: Longest field of an item that is given as a dict, in words, as in the dataset; 0 means all.
        field_values: Most values of a list in such an item; 0 means all.
    """

    instruction: str = "Will the user choose the candidate item next? Answer yes or no."
    summary_heading: str = "Preference summary:"
    recent_heading: str = "Recent items, oldest first:"
    candidate_heading: str = "Candidate item:"
    cue: str = "Answer:"
    yes: str = "yes"
    no: str = "no"
    recent_items: int = 5
    max_tokens: int = 0
    field_words: int = 0
    field_values: int = 0

    def __post_init__(self) -> None:
        if self.yes == self.no:
            raise InputError(f"The two answer words must differ, both are {self.yes!r}.")
        for name in ("recent_items", "max_tokens", "field_words", "field_values"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}.")

    def item(self, value: str | Mapping[str, object] | Item) -> Item:
        """Read an item as the dataset's were, see `Item.parse`."""
        return Item.parse(value, self.field_words, self.field_values)

    def prefix(self, summary: str | None, recent: Sequence[Item]) -> str:
        """Everything up to the candidate. A user without summary or items simply lacks that section."""
        parts = [self.instruction]
        if text := clean(summary or ""):
            parts.append(f"{self.summary_heading}\n- {text}")
        if recent:
            parts.append(f"{self.recent_heading}\n{_lines(recent)}")
        return "\n\n".join(parts) + "\n\n"

    def suffix(self, candidate: Item) -> str:
        """The candidate and the answer cue."""
        return f"{self.candidate_heading}\n- {candidate.text}\n\n{self.cue}"

    def to_dict(self) -> dict[str, object]:
        """As plain values; limits of fields only where there are some."""
        return {
            name: value for name, value in asdict(self).items() if value or name not in ("field_words", "field_values")
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RankingPrompt":
        field_types = {field.name: type(field.default) for field in fields(cls)}
        for name, value in values.items():
            if name not in field_types:
                raise InputError(f"Unknown ranking prompt field {name!r}, expected some of {', '.join(field_types)}.")
            if type(value) is not field_types[name]:
                raise InputError(f"Ranking prompt field {name!r} must be {field_types[name].__name__}, got {value!r}.")
        return cls(**values)


def _lines(items: Sequence[Item]) -> str:
    return "\n".join(f"- {item.text}" for item in items)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A user's shared part.

    Attributes:
        ids: Token ids.
        recent_dropped: Recent items left out to fit, oldest first.
        summary_words_dropped: Words cut from the summary's end to fit.
    """

    ids: list[int]
    recent_dropped: int = 0
    summary_words_dropped: int = 0


class AddedTokens:
    """Breaks up added tokens in text from outside, by a space after their first character.

    Args:
        tokens: In the order in which they are broken up. One with fewer than two visible characters stays as it is: a
            space cannot break it up.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._broken: dict[str, str] = {}
        self._lengths: dict[str, list[int]] = {}  # first character -> lengths of the tokens that begin with it
        for token in tokens:
            if len(visible := token.lstrip()) > 1 and not visible[1:].isspace():
                cut = len(token) - len(visible) + 1
                self._broken[token] = f"{token[:cut]} {token[cut:]}"
                lengths = self._lengths.setdefault(token[0], [])
                if len(token) not in lengths:
                    lengths.append(len(token))
        self._starts = re.compile(f"[{''.join(map(re.escape, self._lengths))}]") if self._lengths else None

    def break_up(self, text: str) -> str:
        """`text` without added tokens. Repeated until none is left: tokens overlap, and an inserted space can form a new one."""
        while self._stand_in(text):
            for token, broken in self._broken.items():
                text = text.replace(token, broken)
        return text

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each token and what stands for it."""
        return iter(self._broken.items())

    def _stand_in(self, text: str) -> bool:
        starts = self._starts.finditer(text) if self._starts else ()
        return any(
            text[start.start() : start.start() + length] in self._broken
            for start in starts
            for length in self._lengths[start[0]]
        )


class Encoder:
    """Turns prompts into token ids for one tokenizer.

    A chat template is rendered for a fixed day, `TEMPLATE_DATE`, and without thinking.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: The ranking prompt.
        context: The model's context length in tokens; an over-long prompt is shortened or refused.
        chat: Wrap prompts in the chat template; None means when the tokenizer has one.

    Attributes:
        breaks: Line breaks that a suffix opens with, and a prefix does not end with.
    """

    def __init__(self, tokenizer, prompt: RankingPrompt | None = None, context: int = 0, chat: bool | None = None):
        self.tokenizer = tokenizer
        self.prompt = prompt or RankingPrompt()
        limits = [limit for limit in (self.prompt.max_tokens, context) if limit]
        self.limit = min(limits) if limits else 0
        self.chat = bool(tokenizer.chat_template) if chat is None else chat
        self._added: tuple[int, tuple[AddedTokens, dict[int, str]]] | None = None
        self._frames: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
        self.head_ids, self.tail_ids = self._frame_ids(())
        self.breaks = self._breaks()
        self.yes_id, self.no_id = self._answers()

    def text_ids(self, text: str) -> list[int]:
        """Encode text that may hold anything: control tokens in it are plain characters."""
        if not text:
            return []
        # Added tokens that are not marked special are recognised all the same.
        tokens, normalized = self._added_tokens()
        ids = self._encode(tokens.break_up(text))
        if normalized.keys().isdisjoint(ids):
            return ids
        # Text in another form, such as another case, that the tokenizer's normalizer makes the same.
        return [
            piece
            for token_id in ids
            for piece in (self._encode(normalized[token_id]) if token_id in normalized else [token_id])
        ]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def request_ids(self, text: str, turns: tuple[str, ...] = ()) -> list[int]:
        """A whole prompt for the model to continue, such as a block prompt.

        Args:
            turns: What the user and the model said before, in turn; our own words, in which control tokens are recognised.
        """
        head, tail = self._frame_ids(turns)
        return head + self.text_ids(text if self.chat else text + "\n") + tail

    @cached_property
    def line_ends(self) -> frozenset[int]:
        """The tokens with a line break in them."""
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return frozenset(token for token, text in enumerate(texts) if "\n" in text)

    def _frame_ids(self, turns: tuple[str, ...]) -> tuple[list[int], list[int]]:
        if turns not in self._frames:
            head, tail = (
                self.tokenizer.encode(text, add_special_tokens=False) if text else [] for text in self.frame(turns)
            )
            self._frames[turns] = head, tail
        return self._frames[turns]

    def suffix_ids(self, candidate: Item) -> list[int]:
        """The candidate, the cue, and the opening of the answer."""
        return self.text_ids(self.breaks + self.prompt.suffix(candidate)) + self.tail_ids

    def prefix_ids(self, summary: str | None, items: Sequence[Item], longest_suffix: int = 0) -> Prefix:
        """The shared part for a user, shortened to leave `longest_suffix` tokens.

        Keeps the newest `recent_items` items. If that is too long, drops the oldest of them one by one, then words from
        the summary's end. Candidate and answer are never cut.

        Raises:
            ValueError: If the longest candidate leaves no room even so.
        """
        recent = newest(items, self.prompt.recent_items)
        shown = len(recent)
        room = self.limit - longest_suffix if self.limit else None

        def encode(newest_items: Sequence[Item], text: str | None) -> list[int]:
            return self.head_ids + self.text_ids(self.prompt.prefix(text, newest_items).removesuffix(self.breaks))

        ids = encode(recent, summary)
        if room is None or len(ids) <= room:
            return Prefix(ids)
        while recent and len(ids) > room:
            recent.pop(0)
            ids = encode(recent, summary)
        words = clean(summary or "").split()
        word_count = len(words)
        if len(ids) > room and words:
            low, high = 0, word_count  # largest number of words that fits
            while low < high:
                middle = (low + high + 1) // 2
                if len(encode(recent, " ".join(words[:middle]))) <= room:
                    low = middle
                else:
                    high = middle - 1
            word_count = low
            ids = encode(recent, " ".join(words[:word_count]))
        if len(ids) > room:
            raise InputError(
                f"A candidate of {longest_suffix} tokens does not fit into {self.limit} beside the instruction "
                f"({len(ids)} tokens). Shorten the candidate's text, or use a model with a longer context."
            )
        return Prefix(ids, shown - len(recent), len(words) - word_count)

    def _breaks(self) -> str:
        """The line breaks that open a suffix, of the two that stand between it and the prefix.

        So many that both have the ids of the whole text, which a server that takes text reads: some tokenizers make one token
        of two breaks at the end of a text alone, others of any two.
        """
        item = Item("title: Emma")
        prefix, suffix = self.prompt.prefix("title: Emma x1", [item]), self.prompt.suffix(item)
        whole = self.text_ids(prefix + suffix)
        for breaks in ("", "\n", "\n\n"):
            if self.text_ids(prefix.removesuffix(breaks)) + self.text_ids(breaks + suffix) == whole:
                return breaks
        return ""

    def _bos(self) -> str:
        """What the tokenizer itself puts in front of text."""
        bos = self.tokenizer.bos_token_id
        return self.tokenizer.bos_token if bos is not None and bos in self.tokenizer("").input_ids else ""

    def frame(self, turns: Sequence[str] = ()) -> tuple[str, str]:
        """What stands before and after a prompt: the chat template's text around a user message, or a lone BOS; and before
        it what the user and the model said in earlier `turns`.

        The answer comes right after it, so a thinking block must not be open there. Templates are asked for none, with
        `enable_thinking=False`; where one opens a block all the same, as those of models that always think do, it is
        closed, empty, in the form in which Qwen3 and SmolLM3 switch thinking off. A model that thinks always has not
        learnt to answer so, hence the warning; for ranking, fine-tuning teaches it.
        """
        if not self.chat:
            return self._bos() + "".join(f"{said}\n\n" if n % 2 else f"{said}\n" for n, said in enumerate(turns)), ""
        mark = "TRSRMESSAGE"
        template = self.tokenizer.get_chat_template()
        text = self.tokenizer.apply_chat_template(
            [
                {"role": role, "content": said}
                for role, said in zip(cycle(("user", "assistant")), (*turns, mark), strict=False)
            ],
            chat_template=_STRFTIME + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        head, separator, tail = text.partition(mark)
        if not separator or mark in tail:
            raise InputError(
                "The chat template does not show the user's message exactly once. Use another model, or remove the "
                "template (chat: false in a recipe)."
            )
        if (marks := THINKING.findall(tail)) and not marks[-1][1]:
            opening, _, name, closing = marks[-1]
            tail = f"{tail.rstrip()}\n\n{opening}/{name}{closing}\n\n"
            logger.warning_once(
                f"The chat template opens a thinking block, {opening}{name}{closing}, though it is asked for none. The "
                "block is closed empty, so that the answer follows at once."
            )
        return head, tail

    def _answers(self) -> tuple[int, int]:
        """The two answer tokens, as they follow the cue."""
        words = (self.prompt.yes, self.prompt.no)
        forms = ("{}", " {}") if self.chat else (" {}", "{}")
        for form in forms:
            ids = [self.text_ids(form.format(word)) for word in words]
            if all(len(word_ids) == 1 for word_ids in ids) and ids[0] != ids[1]:
                return ids[0][0], ids[1][0]
        raise InputError(
            f"The answers {words[0]!r} and {words[1]!r} are not two different single tokens of this tokenizer. "
            "Choose other answer words in the ranking prompt."
        )

    def added_tokens(self) -> AddedTokens:
        """The added tokens that are broken up wherever text from outside holds them: those not marked special."""
        return self._added_tokens()[0]

    def _added_tokens(self) -> tuple[AddedTokens, dict[int, str]]:
        """These tokens, and id -> broken form of those that the tokenizer looks for in normalized text.

        Listing them takes tens of milliseconds where there are thousands, so it is done again only when the tokenizer
        has got more tokens.
        """
        size = len(self.tokenizer)
        if self._added is None or self._added[0] != size:
            added = {
                number: token for number, token in self.tokenizer.added_tokens_decoder.items() if not token.special
            }
            tokens = AddedTokens(token.content for token in added.values())
            broken = dict(tokens)
            normalized = {
                number: broken[token.content]
                for number, token in added.items()
                if token.normalized and token.content in broken
            }
            self._added = size, (tokens, normalized)
        return self._added[1]
