"""Datasets as the paper's code makes them, row by row with pandas: what `bench.data` measures ours against.

Written from a description of that code, faults left in: the history's items may be drawn as negatives.

python -m bench.by_rows mind|amazon-m2 FOLDER OUT SHARE
"""

import json
import re
import sys
import time
from pathlib import Path

import pandas as pd

MIND = ["impression", "user", "time", "history", "shown"]
NEWS = ["id", "category", "subcategory", "title", "abstract", "url", "entities", "more"]
SHOWN = {
    "mind": ["id", "category", "subcategory", "title"],
    "amazon-m2": "id title price brand color size model material author desc".split(),
}


def sentence(row: pd.Series, columns: list[str]) -> str:
    return "; ".join(f"{name}: {row[name]}" for name in columns if pd.notna(row[name]))


def mind(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Users with 11 to 26 items, the catalogue, and the CPU seconds up to there: as many for any number of users."""
    plain = {"sep": "\t", "header": None, "quoting": 3, "on_bad_lines": "skip"}
    items = pd.read_csv(folder / "news.tsv", names=NEWS, **plain)
    fixed = time.process_time()
    log = pd.read_csv(folder / "behaviors.tsv", names=MIND, **plain)
    log = log.dropna(subset=["history"]).drop_duplicates(subset=["user"], keep="first")
    log["history"] = log["history"].apply(lambda text: text.split(" "))
    log = log[log["history"].apply(len).between(11, 26)].reset_index(drop=True)
    log["target"] = log["history"].apply(lambda items: items[-1])
    log["history"] = log["history"].apply(lambda items: items[:-1])
    return log[["history", "target"]], items, fixed


def amazon_m2(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Sessions of the UK with 10 to 25 items before the next one, and the rest as in `mind`."""
    items = pd.read_csv(folder / "products_train.csv", on_bad_lines="skip")
    items = items[items["locale"] == "UK"].reset_index(drop=True)
    fixed = time.process_time()
    log = pd.read_csv(folder / "sessions_train.csv", on_bad_lines="skip").dropna()
    log["history"] = log["prev_items"].apply(lambda text: re.findall("'(.*?)'", text))
    log = log[log["locale"] == "UK"]
    log = log[log["history"].apply(len).between(10, 25)].reset_index(drop=True)
    return log[["history", "next_item"]], items, fixed


def main(what: str, folder: Path, out: Path, share: float) -> None:
    """Write sessions with 20 negatives, and the sentences of a share of the items."""
    users, items, fixed = (mind if what == "mind" else amazon_m2)(folder)
    users["negatives"] = [list(items["id"].sample(n=20, random_state=number)) for number in range(len(users))]
    some = items[: max(1, int(len(items) * share))].copy()
    some["sentence"] = some.apply(lambda row: sentence(row, SHOWN[what]), axis=1)
    out.mkdir(parents=True)
    some.to_parquet(out / "items.parquet")
    users.to_parquet(out / "users.parquet")
    print(json.dumps({"fixed_cpu_seconds": fixed}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
