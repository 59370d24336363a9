"""
Tell the two figures of a coverage report apart, and demand all of one.

Coverage.py has a limit for lines and branches taken together only.  Here lines have to be covered completely, while
branches are reported for the reader.  The input is what C{coverage json} wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: Path) -> int:
    """
    Print both figures.

    @param report: The file that C{coverage json} wrote.
    @return: The exit status: 0 if all lines were run.
    """
    document = json.loads(report.read_text(encoding="utf-8"))
    totals = document["totals"]
    print(f"lines:    {totals['covered_lines']} of {totals['num_statements']}")
    print(f"branches: {totals['covered_branches']} of {totals['num_branches']}")
    missing = {
        name: file["missing_lines"]
        for name, file in document["files"].items()
        if file["missing_lines"]
    }
    for name, lines in missing.items():
        print(f"not run:  {name}: {', '.join(map(str, lines))}")
    if not totals["num_statements"]:
        print("nothing was measured")
        return 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
