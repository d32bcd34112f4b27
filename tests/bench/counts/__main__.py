"""``make bench-check``; with ``--update`` (``make bench-check UPDATE=1``) the figures become the baseline."""

from __future__ import annotations

import argparse
import sys

from tests.bench.counts.compare import report
from tests.bench.counts.guard import BASELINE, counted, differences, least_memory, update


def main() -> None:
    """Count, and compare. Exit 1 when anything is worse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    figures = counted("calls") | least_memory()
    found = differences(figures) if BASELINE.exists() else []
    if found:
        print(report(found))
    if arguments.update:
        update(figures)
        print(f"\n{BASELINE.name} has the {len(figures)} counts of now: commit it")
    elif any(each.is_worse for each in found):
        sys.exit("\nSomething got worse. If that is meant to be: make bench-check UPDATE=1, and commit it.")
    elif found:
        print("\nNothing got worse. So that it stays so: make bench-check UPDATE=1, and commit it.")
    else:
        print(f"All {len(figures)} counts are as in the baseline.")


if __name__ == "__main__":
    main()
