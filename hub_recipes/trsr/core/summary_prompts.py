"""What a language model is asked when it summarises: block, merge and update prompts as text, and what an answer to them says.

Text from outside (items, summaries) stands on lines of its own, each opened by a marker, with whatever looks like a control
token broken up. Knows nothing of tokenizers; `SETS` names the sets of prompts that a user can choose from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from .control_tokens import BREAKABLE, without_closing, without_reasoning
from .errors import InputError
from .history import Block, Item, clean
from .summarize import SummaryRequest


def neutralize(text: str) -> str:
    """Return `text` as one clean line with whatever looks like a control token broken up by a space.

    For servers, whose tokenizer is not here to say what its control tokens are.
    """
    line = clean(text)
    return BREAKABLE.sub(r"\g<0> ", line) if any(opening in line for opening in "<＜[［◁") else line


class Example(NamedTuple):
    """A worked example: a question of one kind, `block`, `merge` or `update`, and its answer."""

    kind: str
    message: str
    answer: str


@dataclass(frozen=True, slots=True)
class SummaryPrompts:
    """What a language model is asked when it summarises. The wording follows the paper's three prompts.

    Items and summaries stand on a line each, in plain characters: no text of theirs is structure.

    Attributes:
        form: What an answer begins with, which is then one line; empty where it has no fixed form.
        examples: They stand before a question of their kind, as earlier turns of the conversation.
    """

    block: str = "Summarise the preferences of a user who chose these items, oldest first, in two or three sentences."
    merge: str = (
        "These summaries describe one user's preferences over time, oldest first. "
        "Merge them into one summary of two or three sentences."
    )
    update: str = (
        "Below are a summary of a user's preferences and the items that the user chose since. "
        "Write one complete, updated summary in two or three sentences."
    )
    cue: str = "Answer with the summary only."
    form: str = ""
    examples: tuple[Example, ...] = ()

    def turns(self, kind: str) -> tuple[str, ...]:
        """What is said before a question of a kind: message and answer of each example, in turn."""
        return tuple(
            said for example in self.examples if example.kind == kind for said in (example.message, example.answer)
        )

    def conversation(self, question: SummaryRequest) -> str:
        """All that a model reads: the examples, if there are any, and the question."""
        return "\n\n".join((*self.turns(question.kind), self.text(question)))

    def answer_text(self, answer: str) -> str:
        """What an answer says, not cleaned: without its reasoning and the control tokens that close it.

        With a fixed form, its first line alone, without what opens the form.
        """
        text = without_closing(without_reasoning(answer))
        if not self.form:
            return text
        line = text.strip().partition("\n")[0]
        return line[len(self.form) :] if self.is_in_form(line) else line

    def is_in_form(self, text: str) -> bool:
        """Whether a text begins as the fixed form does."""
        return text.lstrip().casefold().startswith(self.form.casefold())

    def summary(self, answer: str) -> str:
        """The summary in an answer, as one clean line."""
        return clean(self.answer_text(answer))

    def to_dict(self) -> dict[str, Any]:
        """As plain values; form and examples only where there are some."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["examples"] = [list(example) for example in self.examples]
        return {name: value for name, value in values.items() if value or name not in ("form", "examples")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SummaryPrompts":
        """Raises InputError for values that are not in the form of `to_dict`."""
        try:
            prompts = cls(**{**values, "examples": tuple(Example(*example) for example in values.get("examples", ()))})
        except TypeError as error:
            raise InputError(f"These are no prompts for summaries: {error}") from None
        texts = [getattr(prompts, field.name) for field in fields(cls) if field.name != "examples"]
        if not all(
            isinstance(text, str) for text in (*texts, *(part for example in prompts.examples for part in example))
        ):
            raise InputError(f"Prompts for summaries are strings, got {dict(values)!r:.200}.")
        return prompts

    def text(self, question: SummaryRequest) -> str:
        """The whole message to a model."""
        if question.kind == "block":
            return self.block_text(question.block)
        if question.kind == "merge":
            return self.merge_text(question.summaries)
        return self.update_text(question.summaries[0], question.block)

    def block_text(self, block: Block) -> str:
        """The message that asks for a summary of one block of items."""
        return f"{self.block}\n\nItems:\n{_inert_lines(block)}{self._ending()}"

    def merge_text(self, summaries: Sequence[str]) -> str:
        """The message that asks for one summary of several, oldest first."""
        numbered = "\n".join(f"{n}. {neutralize(summary)}" for n, summary in enumerate(summaries, 1))
        return f"{self.merge}\n\nSummaries:\n{numbered}{self._ending()}"

    def update_text(self, summary: str, block: Block) -> str:
        """The message that asks for a summary, updated by a block of new items."""
        return (
            f"{self.update}\n\nSummary:\n- {neutralize(summary)}\n\nNew items:\n{_inert_lines(block)}{self._ending()}"
        )

    def _ending(self) -> str:
        return f"\n\n{self.cue}" if self.cue else ""


def _inert_lines(items: Sequence[Item]) -> str:
    return "\n".join(f"- {neutralize(item.text)}" for item in items)


_BOOKS = (
    Item("title: The Salt Lantern; author: Mara Quill; genre: Sea Stories, History"),
    Item("title: Reef and Anchor; author: Joss Marlowe; genre: Sea Stories, Adventure"),
    Item("title: The Last Oven; author: Mara Quill; genre: Baking"),
)
_NEW_BOOKS = (
    Item("title: Rye and Honey; author: Mara Quill; genre: Baking, Bread"),
    Item("title: The Quiet Hedge; author: Ona Birch; genre: Gardening"),
)
_GOODS = (
    Item(
        "title: HT-204 Enamel Teapot, 1-1/2 L, Blue (Pack of 2); brand: Hollin; category: Home & Garden,Kitchen,Teapots"
    ),
    Item("title: Oak Tray, 40 x 30 cm; brand: Hollin; category: Home & Garden,Kitchen,Trays"),
    Item("title: 12060 Hose 1/2-Inch, 20 m; brand: Wetherby; category: Home & Garden,Garden,Watering"),
)
_NEW_GOODS = (
    Item("title: 318-B Watering Can, 5 L; brand: Wetherby; category: Home & Garden,Garden,Watering"),
    Item("title: Walnut Chess Set, 32 Pcs; brand: Orlo; category: Toys,Board Games"),
)


def _small() -> SummaryPrompts:
    """For models of a few hundred million parameters, which copy a form better than they follow an instruction.

    Two made-up examples of each kind, one of books and one of goods, so that neither tells what all items are.
    """
    prompts = SummaryPrompts(
        block="In one line, say what kinds of items this user likes.",
        merge="In one line, say what kinds of items this user likes, newest first.",
        update="In one line, say what kinds of items this user likes now, newest first.",
        cue="",
        form="Likes:",
    )
    books = "sea stories; history; adventure; baking; books by Mara Quill and Joss Marlowe."
    goods = "teapots; trays; kitchen things; garden hoses; watering; the brands Hollin and Wetherby."
    new_books = "baking; bread; gardening; sea stories; history; books by Mara Quill, Ona Birch and Joss Marlowe."
    new_goods = "watering cans; chess; board games; teapots; kitchen things; the brands Wetherby, Orlo and Hollin."
    examples = (
        Example("block", prompts.block_text(_BOOKS), books),
        Example("block", prompts.block_text(_GOODS), goods),
        Example("update", prompts.update_text(books, _NEW_BOOKS), new_books),
        Example("update", prompts.update_text(goods, _NEW_GOODS), new_goods),
        Example(
            "merge",
            prompts.merge_text((books, "baking; bread; gardening; books by Mara Quill and Ona Birch.")),
            new_books,
        ),
        Example(
            "merge",
            prompts.merge_text((goods, "watering cans; chess; board games; the brands Wetherby and Orlo.")),
            new_goods,
        ),
    )
    return replace(
        prompts, examples=tuple(example._replace(answer=f"{prompts.form} {example.answer}") for example in examples)
    )


SETS = {"default": SummaryPrompts(), "small": _small()}
# Sampling that goes with the set `small`; the penalty is for models in this process alone.
SMALL_SAMPLING: Mapping[str, Any] = {"max_new_tokens": 64, "answer_penalty": 1.2}
