"""Generate matching games: the easiest ranking prompts, for the first part of pretraining.

A prompt names a few topics, as a summary or as items; the chosen candidate has one of them, the others have none. No
noise, short prompts, names that never repeat: they teach to match text. Trained on worlds at once, a model this small
stays at chance for thousands of steps.
"""

import random

from trsr.core.history import Item
from trsr.pretrain.nano.worlds import ADJECTIVES, DOMAINS, GENERIC, PROSE, invented_name, lexicon

TOPIC_FIELDS = ("genre", "category", "topic", "author", "brand", "director", "shelves")


def game(seed: int, hardness: float, negatives: int) -> tuple[str | None, list[Item], Item, list[Item]]:
    """One game: summary, recent items, the chosen candidate, the others.

    Args:
        seed: The same seed gives the same game.
        hardness: 0 to 1: the number of topics, and the amount of other text.
        negatives: Number of the other candidates.
    """
    rng = random.Random(f"game-{seed}")
    words = lexicon()
    field = rng.choice(TOPIC_FIELDS)
    liked_count = rng.randint(1, 2 + round(5 * hardness))
    names = topic_names(rng, liked_count + negatives)
    liked, other_topics = names[:liked_count], names[liked_count:]
    rich = rng.random() < hardness
    domain = tuple(name for name in rng.choice(DOMAINS) if name not in PROSE) if rich else ()

    def item(topic: str) -> Item:
        fields = {field: topic}
        if domain:
            title = f"The {rng.choice(ADJECTIVES)} {rng.choice(words)} of {rng.choice(GENERIC)}".title()
            fields = {"title": title, field: topic}
            if rng.random() < 0.5:
                fields = {field: topic, "title": title}
        return Item("; ".join(f"{name}: {value}" for name, value in fields.items()))

    topics = [topic for topic in liked for _ in range(rng.choice([1, 1, 2]))]
    rng.shuffle(topics)
    as_summary = rng.random() < 0.6
    noise = [item(" ".join(rng.sample(words, 2))) for _ in range(rng.randint(0, round(4 * hardness)))]
    if as_summary:
        parts = [f"{field}: " + ", ".join(f"{topic} x{rng.randint(1, 9)}" for topic in liked)]
        if rich:
            parts.append("words: " + ", ".join(f"{rng.choice(words)} x{rng.randint(2, 4)}" for _ in range(4)))
            rng.shuffle(parts)
        return "; ".join(parts), noise, item(rng.choice(liked)), [item(topic) for topic in other_topics]
    return (
        None,
        [item(topic) for topic in topics[:8]],
        item(rng.choice(topics[:8])),
        [item(topic) for topic in other_topics],
    )


def topic_names(rng: random.Random, count: int) -> list[str]:
    """`count` different names of topics, from known and made-up words."""
    words = lexicon()
    names: list[str] = []
    while len(names) < count:
        roll = rng.random()
        name = invented_name(rng) if roll < 0.25 else " ".join(rng.sample(words, rng.choice([1, 2])))
        if roll > 0.9:
            name = f"{invented_name(rng)} {invented_name(rng)}"
        if name not in names:
            names.append(name)
    return names
