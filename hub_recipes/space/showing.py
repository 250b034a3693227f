"""Answers as HTML. All text is escaped here, and nowhere taken as HTML or Markdown.

The page shows these strings with gradio's own template, `${value}`: values put into a template with {{ }} would be run
as JavaScript wherever they hold ${ } or a backtick.
"""

import unicodedata
from collections.abc import Mapping
from html import escape
from typing import Any

LISTED = 10  # items of a list that are shown
LISTS = {
    "both": ("Both stages, scores added", "score"),
    "language_model": ("Language model alone, log-odds of yes", "log_odds"),
    "first_stage": ("First stage alone, without the summary", "stage_one"),
}


def plain(text: object) -> str:
    """Text for HTML: escaped, and without the control and direction characters that would disturb its surroundings."""
    return escape(
        "".join(one for one in str(text) if one == "\n" or unicodedata.category(one) not in ("Cc", "Cf", "Cs"))
    )


def blocks(made: dict[str, Any]) -> str:
    """What `Recommender.summarize` yields."""
    cards = []
    for place, block in enumerate(made["blocks"], 1):
        items = "".join(f"<li>{plain(item)}</li>" for item in block["items"])
        cards.append(
            f"<section class='card'><h3>Block {place}</h3><ol class='items'>{items}</ol><dl>"
            f"{_summary('Recurrent summary up to this block', block['recurrent'])}"
            f"{_summary('Summary of this block alone (hierarchical)', block['hierarchical'])}</dl></section>"
        )
    old = made["too_old"]
    note = f"<p class='note'>{_count(old, 'older item')} left out: the newest blocks are read.</p>" if old else ""
    whole = "".join(_summary(name.capitalize(), made[name]) for name in ("recurrent", "hierarchical"))
    cards.append(f"<section class='card whole'><h3>Whole history</h3><dl>{whole}</dl></section>")
    return f"{_status(made)}{note}<div class='cards'>{''.join(cards)}</div>"


def ranking(answer: dict[str, Any], chosen: str = "") -> str:
    """What `Recommender.rank` returns, as bars.

    Args:
        chosen: The text of the candidate that the sample user chose, to be marked.
    """
    bars = []
    for one in answer["candidates"]:
        mark = " <strong class='chosen'>actual choice</strong>" if chosen and one["text"] == chosen else ""
        bars.append(
            f"<li><span class='text'>{plain(one['text'])}{mark}</span>"
            f"<span class='figure'>{one['p_yes']:.3f}</span>{_bar(one['p_yes'])}</li>"
        )
    parts = [f"{name.replace('_', ' ')}: {count}" for name, count in answer["shortened"].items() if count]
    cut = f"<p class='note'>To fit the model's context, {', '.join(parts)}.</p>" if parts else ""
    took = f"{_count(len(bars), 'candidate')} ranked in {_seconds(answer['seconds'])}. Figures are P(yes)."
    return f"<p role='status'>{took}</p>{cut}<ol class='bars'>{''.join(bars)}</ol>"


def lists(
    found: dict[str, Any], catalogue: int, before: Mapping[str, Mapping[str, int]] | None = None, chosen: str = ""
) -> str:
    """What `CatalogueRecommender.recommend` returns, as a list for each way of ranking.

    Args:
        catalogue: Number of its items.
        before: Item id -> its ranks in the lists that were shown before, to show how far each item moved.
        chosen: The text of the item that the sample user chose, to be marked.
    """
    items, notes = found["items"], []
    if lost := found["not_in_catalogue"]:
        notes.append(f"{_count(lost, 'item')} of the history not in the catalogue: the first stage skips them.")
    if lost := found["not_excluded"]:
        notes.append(f"{_count(lost, 'item')} to leave out not found in the catalogue.")
    parts = [f"{name.replace('_', ' ')}: {count}" for name, count in found["shortened"].items() if count]
    if parts:
        notes.append(f"To fit the model's context, {', '.join(parts)}.")
    if chosen and all(one["text"] != chosen for one in items):
        notes.append("The actual choice is not among the items that the first stage passed on.")
    shown = "".join(
        _list(title, [one for one in items if system in one["ranks"]], system, score, before, chosen)
        for system, (title, score) in LISTS.items()
    )
    said = f"{_count(len(items), 'item')} of a catalogue of {catalogue:,} ranked in {_seconds(found['seconds'])}"
    moved = ", compared with the lists before" if before is not None else ""
    told = "".join(f"<p class='note'>{note}</p>" for note in notes)
    return f"<p role='status'>{said}{moved}.</p>{told}<div class='cards lists'>{shown}</div>"


def _list(
    title: str, items: list[dict], system: str, score: str, before: Mapping[str, Mapping[str, int]] | None, chosen: str
) -> str:
    if not items:
        return ""
    rows = []
    for one in sorted(items, key=lambda item: item["ranks"][system])[:LISTED]:
        mark = " <strong class='chosen'>actual choice</strong>" if chosen and one["text"] == chosen else ""
        moved = "" if before is None else _moved(before.get(one["item_id"], {}).get(system), one["ranks"][system])
        rows.append(
            f"<li><span class='text'>{plain(one['text'])}{mark}</span>"
            f"<span class='figure'>{moved}{one[score]:+.2f}</span></li>"
        )
    return f"<section class='card'><h3>{title}</h3><ol class='ranked'>{''.join(rows)}</ol></section>"


def _moved(before: int | None, now: int) -> str:
    """How far an item moved since the last list, for eyes and for screen readers."""
    if before == now:
        return ""
    if before is None:
        return "<span class='moved up'>new</span> "
    way, arrow = ("up", "▲") if now < before else ("down", "▼")
    return f"<span class='moved {way}'><span aria-hidden='true'>{arrow}</span><span class='unseen'>{way} </span>{abs(before - now)}</span> "


def reasons(found: dict[str, Any]) -> str:
    """What `Recommender.explain` returns: how far each part moves the candidate."""
    head = (
        f"<p role='status'><span class='text'>{plain(found['text'])}</span><br>"
        f"P(yes) {found['p_yes']:.3f}, rank {found['rank']}, with the full prompt.</p>"
    )
    if not found["without"]:
        return f"{head}<p class='note'>The prompt has neither a summary nor recent items that could be left out.</p>"
    rows = []
    for one in found["without"]:
        way = "down" if one["change"] < 0 else "up"
        rows.append(
            f"<li><span class='text'><strong>Without the {plain(one['part'])}</strong>: {plain(one['text'])}</span>"
            f"<span class='figure'>{one['change']:+.3f}, rank {one['rank']}</span>{_bar(abs(one['change']), way)}</li>"
        )
    return f"{head}<ul class='bars'>{''.join(rows)}</ul>"


def speed(found: dict[str, Any]) -> str:
    """What `Recommender.compare_speed` returns."""
    slowest = max(found[way]["seconds"] for way in ("shared", "separate")) or 1
    names = {"shared": "Shared prefix, read once", "separate": "A separate prompt for each candidate"}
    rows = [
        f"<li><span class='text'>{name}</span><span class='figure'>{_seconds(found[way]['seconds'])}, "
        f"{found[way]['tokens']:,} tokens</span>{_bar(found[way]['seconds'] / slowest)}</li>"
        for way, name in names.items()
    ]
    times = found["separate"]["seconds"] / max(found["shared"]["seconds"], 1e-4)
    said = f"{times:.1f} times as fast; no probability differs by more than {found['difference']:.1g}."
    return f"<p role='status'>{said}</p><ul class='bars'>{''.join(rows)}</ul>"


def facts(named: dict[str, object]) -> str:
    """Names and what they stand for."""
    rows = "".join(f"<dt>{plain(name)}</dt><dd>{plain(value)}</dd>" for name, value in named.items() if value)
    return f"<dl class='facts'>{rows}</dl>"


def _status(made: dict[str, Any]) -> str:
    steps = [block[name] for block in made["blocks"] for name in ("recurrent", "hierarchical")]
    steps += [made["hierarchical"]]
    done = sum(step is not None for step in steps)
    return f"<p role='status'>{done} of {len(steps)} summaries written.</p>"


def _summary(name: str, text: str | None) -> str:
    shown = plain(text) if text is not None else "<span class='waiting'>not written yet</span>"
    return f"<dt>{name}</dt><dd>{shown}</dd>"


def _bar(share: float, kind: str = "") -> str:
    """A bar of a share from 0 to 1; the figure beside it says the same to those who do not see it."""
    return f"<span class='bar {kind}' aria-hidden='true'><span style='width:{100 * min(max(share, 0), 1):.1f}%'></span></span>"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
