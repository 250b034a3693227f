"""How far a ranking follows an edited summary: one preference is replaced by another, or one is added, and items move.

    python -m bench.steerability --out hub_recipes/results/steerability-sample.json
    python -m bench.steerability --model runs/books --dataset data/books --field genres --out steerability.json

For each row of the test split: X is, of the values of a field that the summary names, the one that most items of the history have; Y is
one that neither has.
Candidates are items that the user has not met: some that have X and not Y, some that have Y and not X, some with neither. They are
ranked with the summary as it is, with Y in the place of X, and with Y beside X; histories, and with them recent items, stay.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from bench import report
from bench.run import processor, write
from trsr.cli.exits import exit_codes_for_errors
from trsr.core.scoring import rank
from trsr.dataset import contract
from trsr.errors import DataError
from trsr.metrics.significance import summary as with_intervals
from trsr.recommender.serving import load_recommender
from trsr.records.versions import versions

GROUPS = {"x": 15, "y": 15, "others": 30}  # candidates of a user
SHARE = (0.01, 0.3)  # of the items that have a value, for it to be X or Y: what nearly all have, tells nothing
TOP = 10
METHOD = {
    "candidates": "15 items with X and not Y, 15 with Y and not X, 30 with neither; none that the user met",
    "up": "places that a group's items rise on average, of the mean over its items; positive is towards the first place",
    "top": "share of the group among the first 10",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One user, whose summary is edited.

    Attributes:
        x, y: The value that is replaced, and that takes its place.
        groups: For each group, its item ids.
        named: What finds X in a summary.
    """

    user_id: str
    history: list[str]
    summary: str
    x: str
    y: str
    groups: Mapping[str, list[str]]
    named: re.Pattern

    @property
    def summaries(self) -> dict[str, str]:
        """The summary as it is, and as it is edited."""
        return {
            "as it is": self.summary,
            "replaced": self._edited(lambda count: f"{self.y}{count}"),
            "added": self._edited(lambda count: f"{self.y}{count}, {self.x}{count}"),
        }

    def _edited(self, edit: Callable[[str], str]) -> str:
        return self.named.sub(lambda match: match[0] if match["value"] is None else edit(match["count"]), self.summary)


def named(value: str, others: Iterable[str]) -> re.Pattern:
    """What finds a value as a whole in a summary: group `value`, and `count`, how often it was counted, such as ` x3`.

    A match without `value` is another value, which holds this one as a part.

    Args:
        others: All values of the field.
    """
    longer = sorted((other for other in others if value in other and other != value), key=len, reverse=True)
    own = re.escape(value)
    counted = rf"(?<=[:,;]\s)(?!{own} x\d+(?:[,;]|$))[^:,;]+ x\d+(?=[,;]|$)"  # as extractive summaries list values, of any field
    skipped = "|".join([counted, *(rf"(?<!\w){re.escape(other)}(?!\w)" for other in longer)])
    return re.compile(rf"(?:{skipped})|(?<!\w)(?P<value>{own})(?!\w)(?P<count>(?: x\d+)?)")


def names(pattern: re.Pattern, summary: str) -> bool:
    """Whether a summary names the value of a pattern of `named`."""
    return any(match["value"] is not None for match in pattern.finditer(summary))


@dataclass(frozen=True, slots=True)
class FieldValues:
    """The values of a field.

    Attributes:
        of_item: Item id -> its values.
        patterns: Value -> what finds it, of those that neither too few nor too many items have.
    """

    of_item: Mapping[str, Sequence[str]]
    patterns: Mapping[str, re.Pattern]

    @classmethod
    def of(cls, of_item: Mapping[str, Sequence[str]]) -> "FieldValues":
        holders = Counter(value for values in of_item.values() for value in set(values))
        low, high = (share * len(of_item) for share in SHARE)
        return cls(of_item, {value: named(value, holders) for value, count in holders.items() if low <= count <= high})


def values_of(text: str | None) -> list[str]:
    """The values of a field: parts between commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def choose(row: Mapping[str, Any], summary: str, field: FieldValues, seed: int) -> Case | None:
    """A case for a row of `histories`; None where its summary names no value to replace, or too few items have one."""
    draw = random.Random(f"{seed} {row['user_id']}")
    met = {*row["history"], row["target"], *(row.get("also_met") or ())}
    liked = Counter(value for item_id in row["history"] for value in field.of_item[item_id])
    in_summary = {value for value, pattern in field.patterns.items() if names(pattern, summary)}
    named_here = [value for value, _ in liked.most_common() if value in in_summary]
    new = sorted(value for value in field.patterns if value not in liked and value not in in_summary)
    if not named_here or not new:
        return None
    x, y = named_here[0], draw.choice(new)
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for item_id, values in field.of_item.items():
        if item_id not in met and not (x in values and y in values):
            groups["x" if x in values else "y" if y in values else "others"].append(item_id)
    if any(len(groups[name]) < count for name, count in GROUPS.items()):
        return None
    drawn = {name: draw.sample(groups[name], count) for name, count in GROUPS.items()}
    return Case(row["user_id"], list(row["history"]), summary, x, y, drawn, field.patterns[x])


def moves(case: Case, log_odds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """What an edit changed for a user.

    Args:
        log_odds: For each of `Case.summaries`, of the candidates, group by group.

    Returns:
        For each edit and group, `EDIT up GROUP` and `EDIT top GROUP`; the latter of `as it is` too.
    """
    of_group = np.repeat(list(GROUPS), list(GROUPS.values()))
    places, figures = {}, {}
    for name, scores in log_odds.items():
        places[name] = np.empty(len(scores))
        places[name][rank(list(scores))] = np.arange(1, len(scores) + 1)
        for group in GROUPS:
            figures[f"{name} top {group}"] = float((places[name][of_group == group] <= TOP).sum() / TOP)
            risen = places["as it is"][of_group == group] - places[name][of_group == group]
            figures[f"{name} up {group}"] = float(risen.mean())
    return figures


def run(
    out: Path, dataset: str = "sample", model: str | None = None, field: str = "genre", users: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Measure, and write the results file.

    Args:
        model: As `load_recommender` takes it; None for the one in the package.
        field: Of the items, whose values are replaced.
        users: At most so many rows of the test split, in its order.

    Raises:
        DataError: If there is no row whose summary can be edited.
    """
    recommender = load_recommender(model, device="cpu")
    items = contract.read(dataset, "items", "train")
    texts = contract.texts_of(items, dataset)
    values = FieldValues.of(
        {item_id: values_of(text) for item_id, text in zip(items["item_id"], items[field], strict=True)}
    )
    config = "recurrent" if "recurrent" in contract.configs(dataset) else "histories"
    cases: list[Case] = []
    figures: list[dict[str, float]] = []
    looked_at = 0
    for row in tqdm(contract.read(dataset, config, "test"), desc="users looked at", unit="user", mininterval=1):
        if len(cases) == users:
            break
        looked_at += 1
        history = [texts[item_id] for item_id in row["history"]]
        summary = row.get("summary") or recommender(
            {"history": history, "candidates": []}, return_summary=True
        )["summary"]  # fmt: skip
        case = choose(row, summary or "", values, seed)
        if case is None:
            continue
        ids = [item_id for group in GROUPS for item_id in case.groups[group]]
        log_odds = {}
        for name, edited in case.summaries.items():
            request = {"history": history, "candidates": [texts[item_id] for item_id in ids], "summary": edited}
            answer = sorted(recommender(request)["candidates"], key=lambda candidate: candidate["index"])
            log_odds[name] = [candidate["log_odds"] for candidate in answer]
        cases.append(case)
        figures.append(moves(case, log_odds))
    if not cases:
        raise DataError(
            f"No summary of {looked_at} names a value of {field!r} that can be replaced: a value counts that {SHARE[0]:.0%} to "
            f"{SHARE[1]:.0%} of the items have. Give another --field."
        )
    owners = [case.user_id for case in cases]
    columns = {name: [user_moves[name] for user_moves in figures] for name in figures[0]}
    right = [(user_moves["replaced up y"] > 0) and (user_moves["replaced up x"] < 0) for user_moves in figures]
    results = {
        "bench": "steerability",
        "dataset": contract.provenance(dataset).name or "dataset",
        "model": Path(model).name if model else "nano",
        "field": field,
        "users": len(set(owners)),
        "looked_at": looked_at,
        "seed": seed,
        "method": METHOD,
        "processor": processor(),
        "versions": versions(),
        "candidates": dict(GROUPS),
        "figures": with_intervals({**columns, "replaced, both as asked": np.array(right, float)}, seed, users=owners),
    }
    write(out, results)
    return results


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="sample", help="(%(default)s)")
    add("--model", help="run, release or repo (the recommender in the package)")
    add("--field", default="genre", help="of the items; its values are parts between commas (%(default)s)")
    add("--users", type=int, default=200, help="of the test split, at most (%(default)s)")
    add("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    add("--out", type=Path, default=Path("steerability.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        results = run(options.out, options.dataset, options.model, options.field, options.users, options.seed)
        print(f"{report.steerability(results)}\n\nWrote {options.out}")


if __name__ == "__main__":
    main()
