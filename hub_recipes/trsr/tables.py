"""Fill the tables of a Markdown file from the results files that it names.

python -m trsr.tables README.md
"""

import json
import re
import sys
from pathlib import Path

from trsr.results import table


def fill(text: str, root: Path) -> str:
    """Replace what stands between `<!-- table: PATH -->` and `<!-- end -->` by the table of that results.json."""

    def render(match: re.Match) -> str:
        results = json.loads((root / match[1]).read_text(encoding="utf-8"))
        return f"<!-- table: {match[1]} -->\n{table(results['systems'])}\n<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end -->", render, text, flags=re.S)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(fill(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")
