"""The `bob results` commands: records of many machines joined, computed again, and described."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_error, print_lines
from bob.errors import UserError
from bob.options import OnlyBackbones, OnlyTasks, Quiet, split_commas

if TYPE_CHECKING:
    from bob.results.merge import Plan
    from bob.results.verify import Finding

app = typer.Typer(rich_markup_mode=None, help="Join, verify and describe records.")

Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; default: one a granted core.")]
_SHOWN = 3  # differences printed of one record


@app.callback()
def results() -> None:
    """Join, verify and describe records."""


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of the records.")] = Path("results"),
    backbone: OnlyBackbones = None,
    task: OnlyTasks = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Say which records are not what was written, by their checksums and by computing every score again.

    Exit code 0 if all records match, 1 if one does not.
    """
    from bob.cores import granted_cores
    from bob.progress import Reporter
    from bob.results.verify import run_folders, verify_all

    folders = run_folders(folder)
    filters = [split_commas(patterns or []) for patterns in (backbone, task)]
    with Reporter(quiet).images("verifying", len(folders), unit="records") as advance:
        findings = verify_all(folders, jobs or granted_cores(), advance, *filters)
    if not findings:
        raise UserError("No record matches.", "Loosen --backbone or --task.")
    wrong = [finding for finding in findings if finding.problems]
    print_lines(f"{finding.name}: {_joined(finding.problems)}" for finding in wrong)
    print_lines([_summary(findings, len(wrong)), *_remarks(findings)])
    raise typer.Exit(1 if wrong else 0)


@app.command("merge")
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders to join.", metavar="DIR")],
    results: Annotated[Path, typer.Option("--results", "--into", help="Folder that the runs go to.")] = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied; copy nothing.")] = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Copy the runs that a results folder lacks from others. Runs that differ are named, and then nothing is copied.

    Runs of one request are equal if they differ in nothing but cost, date, environment and command. The same command
    again goes on where it stopped.
    """
    from bob.cores import granted_cores
    from bob.progress import Reporter
    from bob.results.merge import carry_out, plan
    from bob.results.record import require_writable
    from bob.results.verify import run_folders

    reporter = Reporter(quiet)
    given = sum(len(run_folders(folder)) for folder in folders)
    with reporter.images("reading", given, unit="records") as advance:
        found = plan(folders, results, jobs or granted_cores(), advance)
    for line in found.refused:
        print_error(line)
    if found.refused:
        problem = f"Nothing was copied: {_count(len(found.refused), 'run')} cannot be joined, named above."
        raise UserError(problem, "Delete the folders that are wrong, or run them again.")
    if not dry_run:
        require_writable(results)
        with reporter.images("copying", len(found.new), unit="runs") as advance:
            carry_out(found, results, advance)
    print_lines([_merged(found, results, dry_run)])


@app.command("schema")
def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it to this file instead.")] = None,
) -> None:
    """Print the JSON Schema (draft 2020-12) of a record."""
    from bob.results.files import write_text
    from bob.results.schema import as_text

    if out is None:
        print_lines([as_text().rstrip("\n")])
    else:
        write_text(as_text(), out)
        print_lines([f"Written: {out.absolute()}"])


def _joined(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "; ".join([*problems[:_SHOWN], *more])


def _summary(findings: Sequence[Finding], wrong: int) -> str:
    verdict = f"{wrong:,} of them {'does' if wrong == 1 else 'do'} not match" if wrong else "all match"
    return f"{_count(len(findings), 'record')} verified: {verdict}."


def _remarks(findings: Sequence[Finding]) -> list[str]:
    """What could not be told for sure."""
    old = sum(finding.schema > 0 and not finding.is_sealed for finding in findings)
    rounded = sum(finding.rounded for finding in findings)
    lines = []
    if old:
        lines.append(
            f"{_count(old, 'record')} older than schema 4 {'has' if old == 1 else 'have'} no checksum of their own: "
            "ids, predictions and scores were checked; cards, grids, notes, costs, environments and dates cannot be."
        )
    if rounded:
        lines.append(f"{_count(rounded, 'record')} agree to 9 digits but not to the last, as other libraries round.")
    return lines


def _merged(found: Plan, target: Path, dry_run: bool) -> str:
    verb = "would be copied" if dry_run else "copied"
    again = f", {found.repeated} more given twice" if found.repeated else ""
    return f"{_count(len(found.new), 'run')} {verb} to {target}, {found.present} already there{again}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
