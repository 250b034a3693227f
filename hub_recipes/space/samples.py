"""Users to try and items to draw, from the dataset that the recommender was trained on.

A dataset whose texts may not be passed on has neither; the page then takes what is pasted.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import reading

USERS = 50  # test users that are offered


def as_given(given: Sequence[reading.Given]) -> list[str]:
    """Texts of items, each on one line: strings, and the field `text` of objects."""
    texts = (one if isinstance(one, str) else one.get("text", "") for one in given)
    return [text for one in texts if (text := " ".join(str(one).split()))]


class Samples:
    """Test users and the catalogue. The published methods are part of the API.

    Args:
        users: Name -> `history` (texts, oldest first), `candidates` and the one that was `chosen` next.
        texts: Of the catalogue's items.

    Attributes:
        shown: Gives the texts of items as a recommender reads them; by default, as they are given.
    """

    shown: Callable[[Sequence[reading.Given]], list[str]]

    def __init__(self, users: dict[str, dict] | None = None, texts: list[str] | None = None) -> None:
        self.users = users or {}
        self.texts = texts or []
        self.shown = as_given

    def sample_users(self) -> list[str]:
        """Name the sample users."""
        return list(self.users)

    def sample_user(self, name: str) -> dict:
        """Show a sample user.

        Args:
            name: One of sample_users.

        Returns:
            `history` (the newest items, oldest first), `candidates`, and which of them was `chosen` in fact: as many of
            both as can be asked about at once.
        """
        if name not in self.users:
            raise ValueError(f"There is no sample user {name!r}, see sample_users.")
        return self.users[name]

    def draw_candidates(self, history: str = "", count: int = 10, seed: int = 0) -> list[str]:
        """Draw items of the catalogue at random.

        Args:
            history: Items that are not to be drawn: one a line, a JSON list, or a table with a header.
            count: How many are drawn, at most as many as can be ranked.
            seed: The same seed draws the same items.
        """
        count, seed = reading.whole(count, "count"), reading.whole(seed, "seed")
        most = reading.MOST["candidates"]
        if not 1 <= count <= most:
            raise ValueError(f"count: expected 1 to {most}, got {count}.")
        left_out = set(self.shown(reading.items(history, "history")))
        order = random.Random(seed).sample(range(len(self.texts)), min(count + len(left_out), len(self.texts)))
        drawn = [text for text in (self.texts[place] for place in order) if left_out.isdisjoint(self.shown([text]))]
        return reading.fitting(drawn[:count], "candidates")


def load(release: dict[str, Any]) -> Samples:
    """The samples of the release's dataset; none if it cannot be read, which the log says, or has no texts."""
    if not release.get("dataset"):
        return Samples()
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    where = {"path": release["dataset"], "revision": release.get("dataset_revision")}
    caches = release.get("dataset_caches", {})  # of a folder here, whose files may change
    try:
        items = load_dataset(**where, name="items", split="train", cache_dir=caches.get("items"))
        rows = load_dataset(**where, name="histories", split=f"test[:{USERS}]", cache_dir=caches.get("histories"))
    except (OSError, ValueError, DatasetsError, HTTPError) as error:
        print(f"No sample users: {release['dataset']} cannot be read: {type(error).__name__}: {error}")
        return Samples()
    if "text" not in items.column_names:
        return Samples()
    # One item a line is how the page takes them.
    texts = {item_id: " ".join(text.split()) for item_id, text in zip(items["item_id"], items["text"], strict=True)}
    users = {row["user_id"]: _user(row, texts) for row in rows}
    offered = {name: user for name, user in users.items() if user["candidates"]}
    return Samples(offered, list(dict.fromkeys(texts.values())))


def _user(row: dict[str, Any], texts: dict[str, str]) -> dict:
    """A user within the limits of the page: the target, the first negatives and the newest of the history."""
    # The target stands first, so that it is left out last.
    candidates = reading.fitting([texts[item_id] for item_id in (row["target"], *row["negatives"])], "candidates")
    random.Random(row["user_id"]).shuffle(candidates)
    newest = reading.fitting([texts[item_id] for item_id in reversed(row["history"])], "history")
    return {"history": newest[::-1], "candidates": candidates, "chosen": texts[row["target"]]}
