"""What the cards of a recommender's copies show: of a CrossEncoder, merged weights, and GGUF files. Knows no other card."""

from collections.abc import Mapping
from typing import Any

from trsr.hub import cross_encoder
from trsr.report.markdown import Markdown, code, fence

# Where no texts of the dataset may be shown.
_MADE_UP = {
    "summary": "Likes sea stories.",
    "history": ["title: The Salt Lantern; genre: sea stories", "title: Harbor Nights; genre: sea stories"],
    "candidates": ["title: Reef and Anchor; genre: sea stories", "title: The Quiet Oven; genre: baking"],
}


def values(kind: str, facts) -> dict[str, Any]:
    """Values of the template of a kind of copy.

    Args:
        kind: Of `repos.COPIES`.
        facts: `facts.Facts`.
    """
    copies: Mapping[str, Any] = facts.copies or {}
    measured: Mapping[str, float] = copies.get("differences", {})
    shown = {
        "repo": facts.names.repo(kind),
        "difference": measured.get(kind),
        "candidates": copies.get("candidates"),
        "dtype": copies.get("dtype"),
        "files": [
            (name, measured[name], copies["shifts"][name]) for name in copies.get("gguf", ()) if name in measured
        ],
        "names_of_files": copies.get("gguf", ()),
    }
    return {**shown, **_snippet(facts)} if kind == "cross-encoder" else shown


def _snippet(facts) -> dict[str, Any]:
    """What the code on the card of a CrossEncoder shows."""
    example, prompt = facts.example, facts.prompt
    request = example.request if example else _MADE_UP
    of_user = ["the preference summary"] if facts.recipe.summary != "none" else []
    if prompt.recent_items:
        of_user.append(f"the newest {prompt.recent_items} items, oldest first")
    printed = None
    if example and example.log_odds:
        ranked = sorted(enumerate(example.log_odds), key=lambda pair: -pair[1])
        printed = Markdown(fence(str([(number, round(value, 2)) for number, value in ranked]), "text"))
    return {
        "lowest": cross_encoder.LOWEST,
        "shown_of_user": " and ".join(of_user),
        "summary": Markdown(code((example.summary if example else None) or _MADE_UP["summary"])),
        "history": Markdown(code(request["history"])),
        "candidate_list": Markdown(code(request["candidates"])),
        "summary_heading": Markdown(code(prompt.summary_heading)),
        "recent_heading": Markdown(code(prompt.recent_heading)),
        "printed": printed,
    }
