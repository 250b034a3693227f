"""Fill the tables of a Markdown file from the results files that it names.

python -m bench.fill_tables README.md hub_recipes/RESULTS.md       from the top of the checkout, where the paths in them begin
"""

import json
import re
import sys
from pathlib import Path

from bench import report
from trsr.recommender import memory
from trsr.recommender.compare import report as comparison
from trsr.recommender.results import table
from trsr.retrieval.catalogue import COLUMNS
from trsr.summaries.audit import report as audit

TABLES = {
    "table": lambda results: table(results["systems"]),
    "catalogue": lambda results: table(results["systems"], COLUMNS),
    "bench": report.table,
    "comparison": comparison.table,
    "slices": comparison.slices,
    "tests": comparison.tests,
    "calibration": comparison.calibration,
    "fusions": comparison.fusions,
    "orders": comparison.orders,
    "fits": memory.table,
    "audit": audit.table,
    "frontier": report.frontier,
    "steerability": report.steerability,
    "overview": report.overview,
}


def fill(text: str, root: Path) -> str:
    """Replace what stands between a marker and `<!-- end -->` by the table of the results file that it names.

    `<!-- table: PATH -->` names the results.json of an evaluation, `catalogue` the catalogue.json beside it, `<!-- bench: PATH -->` that of a benchmark;
    `comparison`, `slices`, `tests`, `calibration`, `fusions` and `orders` name the comparison.json of `trsr compare`; `fits` and
    `audit` what `trsr recipes --fits --json` and `trsr audit --json` print; `frontier` and `steerability` what `bench.frontier` and `bench.steerability` write. `overview` names several comparisons, with
    commas between. Paths begin at `root`.
    """

    def render(match: re.Match) -> str:
        files = [json.loads((root / path).read_text(encoding="utf-8")) for path in match[2].split(",")]
        return f"<!-- {match[1]}: {match[2]} -->\n{TABLES[match[1]](*files)}\n<!-- end -->"

    return re.sub(rf"<!-- ({'|'.join(TABLES)}): (\S+) -->\n.*?<!-- end -->", render, text, flags=re.S)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(fill(path.read_text(encoding="utf-8"), Path.cwd()), encoding="utf-8", newline="\n")
