"""The `bob compare` command: what changes from one backbone to another, overall and for each class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bob.console import print_lines, print_table
from bob.options import Results

if TYPE_CHECKING:
    import pandas as pd

    from bob.results.compare import Pair
    from bob.results.metric import Metric
    from bob.results.statistics import Estimate


def compare(
    backbone_a: Annotated[str, typer.Argument(help="The backbone compared with.")],
    backbone_b: Annotated[str, typer.Argument(help="The backbone compared.")],
    task: Annotated[str | None, typer.Option("--task", "-t", help="Needed if they share several.")] = None,
    protocol: Annotated[str | None, typer.Option("--protocol", "-p", help="Needed if they share several.")] = None,
    results: Results = Path("results"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all classes: NAME.csv.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print of the most hurt and most helped.")] = 5,
) -> None:
    """Compare two backbones on the same test images: the overall difference and the classes that it hides."""
    from bob.results.compare import CLASS_SCORES, PARTS, class_table, find_pair, overall
    from bob.results.files import require_suffix, write_csv
    from bob.results.index import read_runs, records_of
    from bob.results.metrics import get_metric
    from bob.results.reading import predictions_of
    from bob.results.record import RECORD_FILE, record_folder
    from bob.results.runs import select

    if out:
        require_suffix(out, (".csv",))
    named = [[task] if task else [], [protocol] if protocol else []]
    runs = select(read_runs(results), [], *named)
    of_both = runs[runs["backbone"].isin([backbone_a, backbone_b])]
    pair = find_pair(list(records_of(results, of_both)), backbone_a, backbone_b)
    a, b = (predictions_of(record_folder(results, record.request) / RECORD_FILE) for record in (pair.a, pair.b))
    metric, names = get_metric(pair.a.primary), (backbone_a, backbone_b)
    difference, table = overall(metric, a, b, names), class_table(a, b, names)
    print_lines(_overall_lines(pair, metric, difference))
    _print_classes(table, names, PARTS.get(a.kind, "classes"), CLASS_SCORES[a.kind], top)
    if out:
        write_csv(table, out)
        print_lines([f"Written: {out.absolute()}"])


def _overall_lines(pair: Pair, metric: Metric, difference: Estimate) -> list[str]:
    a, b = pair.a.request.backbone, pair.b.request.backbone
    before, after = (record.metrics[metric.name].value for record in (pair.a, pair.b))
    better = (difference.value > 0) == metric.higher_is_better
    seed, drawn = pair.a.request.seed, "shots" in pair.a.request.protocol
    alone = f" (seed {seed} alone)" if seed or drawn else ""
    if difference.low <= 0 <= difference.high:
        verdict = "the interval holds 0, so neither is known to be better"
    else:
        verdict = f"{b} is {'better' if better else 'worse'}"
    return [
        f"{pair.setting}{alone}, {metric.label} on {difference.n} test images: {a} {before:.3f}, {b} {after:.3f}",
        f"difference {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] (95%, paired); {verdict}.",
    ]


def _print_classes(table: pd.DataFrame, names: tuple[str, str], what: str, score: str, top: int) -> None:
    a, b = names
    one = "set" if what == "sets" else "class"
    columns = [one, "n", a, b, "difference", "95%"]
    hurt, helped = table[table["difference"] < 0], table[table["difference"] > 0][::-1]
    for word, chosen in (("hurt", hurt), ("helped", helped)):
        print_lines(["", f"{len(chosen)} of {len(table)} {what} are {word} from {a} to {b}, by {score}:"])
        if len(chosen):
            print_table(columns, map(_cells, chosen.head(top).to_dict("records")), numeric_from=1)
    sure = int(((table["low"] > 0) | (table["high"] < 0)).sum())
    chance = f"about {0.05 * len(table):.1f} would be by chance if no {one} differed"
    print_lines(["", f"{sure} of {len(table)} intervals are without 0; {chance}."])


def _cells(row: Mapping[Hashable, Any]) -> list[object]:
    bounds = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    return [row["class"], row["n"], f"{row['a']:.3f}", f"{row['b']:.3f}", f"{row['difference']:+.3f}", bounds]
