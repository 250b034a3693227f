"""Compare figures on one catalogue, of retrievers and of peers, and write a results file for a table.

python -m bench.catalogues runs/both/test peers/scientific/* --against both --out hub_recipes/results/peers-scientific-catalogue.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from trsr.cli.exits import exit_codes_for_errors
from trsr.records.files import write_json
from trsr.retrieval.compare import compare_catalogues


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of evaluations")
    parser.add_argument("--against", metavar="SYSTEM", help="test all others against this one (all pairs)")
    parser.add_argument(
        "--fuse", action="append", nargs="+", default=[], metavar="RUN", help="runs whose scores are added"
    )
    parser.add_argument("--metric", default="recall@10", help="of the tests (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="results file")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        joined = compare_catalogues(options.folders, against=options.against, fuse=options.fuse, metric=options.metric)
        write_json(options.out, joined)
        print(f"Wrote {options.out}: {', '.join(joined['systems'])}")


if __name__ == "__main__":
    main()
