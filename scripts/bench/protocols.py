"""What probing costs beside extraction, on `shapes`: `python scripts/bench/protocols.py`.

Runs a backbone from scratch in a place of its own and prints, from the records, the time of all probes together (choice
on validation, final fit, prediction) as a share of that of the extraction.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path


def main() -> None:
    """Run, then read what the records say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--protocols", default="knn,ridge,linear,linear_sgd")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BOB_HOME"] = folder
        results = Path(folder) / "results"
        records = run(given.backbone, given.protocols, results)
    extract = max(record.cost.seconds["extract"] for record in records)
    total = 0.0
    for record in records:
        seconds = sum(record.cost.seconds[stage] for stage in ("choose", "fit", "predict"))
        total += seconds
        print(f"{record.request.protocol['name']:12} {seconds:6.1f} s")
    print(f"{'extraction':12} {extract:6.1f} s of {records[0].cost.images_per_second:.1f} images/s")
    print(f"all probes / extraction: {total / extract:.2f} (bound: 1)")


def run(backbone: str, protocols: str, results: Path) -> list:
    """One extraction and the runs on it; their records."""
    from bob.cli import main as bob
    from bob.results.reading import read_records

    try:
        bob(["run", "-b", backbone, "-t", "shapes", "-p", protocols, "--results", str(results), "-q"])
    except SystemExit as ended:
        if ended.code:
            raise
    return list(read_records(results))


if __name__ == "__main__":
    main()
