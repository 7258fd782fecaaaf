"""What `bob leaderboard` costs on very many records: `python scripts/bench/leaderboard.py`, see --help.

Writes a record for every pair of backbone and task, as a run with a linear probe would (cards of the repository, 13
points of a grid, 20 classes, joint draws), without the predictions beside it, which the leaderboard does not read.
Then, each time in a fresh process:

- cold: after the kernel was told to forget all files, where it lets itself be told (root on Linux), without an index;
- unchanged: the same again;
- one changed: after one record was replaced.

Prints wall seconds and those of all cores together, the largest memory of any one process and of all together, and
ratios to reading the same files by a plain loop of `open().read()`, measured before in the same state. 100,000 records
take 2 GB below --folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from many_records import write_records

from bob.cores import granted_cores
from bob.results.reading import read_record
from bob.results.record import RECORD_FILE, RUNS, MetricResult, sealed

_SAMPLED = 0.02  # seconds between two looks at the memory


def main() -> None:
    """Write the records, measure, print, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the records there, and leave them")
    parser.add_argument("--reuse", type=Path, metavar="DIR", help="measure on records that --keep left")
    parser.add_argument("rest", nargs="*", metavar="ARGUMENT", help="further arguments of `bob leaderboard`, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        results = given.reuse or given.keep or Path(temporary) / "results"
        if not given.reuse:
            write_records(results, given.backbones, given.tasks)
        _measure(results, Path(temporary), given.rest)


def _measure(results: Path, temporary: Path, arguments: list[str]) -> None:
    paths = [f"{folder.path}/{RECORD_FILE}" for folder in os.scandir(results / RUNS)]
    print(f"{len(paths):,} records; cores: {granted_cores()}")
    forgot = _forget()
    print(
        "files out of the kernel's memory before cold readings" if forgot else "FILES STAY IN MEMORY: cold is not cold"
    )
    cold, size = _timed(lambda: sum(map(_read, paths)))
    warm, _ = _timed(lambda: sum(map(_read, paths)))
    print(f"plain reading of {size / 1e6:,.0f} MB: cold {cold:.1f} s, warm {warm:.1f} s")
    shutil.rmtree(temporary / "home", ignore_errors=True)
    _forget()
    command = [sys.executable, "-m", "bob", "leaderboard", "--results", os.fspath(results), *arguments]
    _report("cold", _run(command, temporary), cold)
    _report("unchanged", _run(command, temporary), warm)
    before = _change(paths[len(paths) // 2])
    try:
        _report("one changed", _run(command, temporary), warm)
    finally:
        _put(Path(paths[len(paths) // 2]), before)


def _forget() -> bool:
    """Have the kernel drop its copies of files; whether it did."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    except OSError:
        return False
    return True


def _read(path: str) -> int:
    with open(path, "rb") as file:
        return len(file.read())


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    started = time.perf_counter()
    value = work()
    return time.perf_counter() - started, value


def _change(path: str) -> bytes:
    """Replace a record by one of another score; return what it was."""
    before = Path(path).read_bytes()
    record = read_record(Path(path))
    score = record.metrics[record.primary]
    other = MetricResult(**{**dict(score), "value": score.value / 2, "low": score.low / 2})
    changed = record.model_copy(update={"metrics": {**record.metrics, record.primary: other}})
    _put(Path(path), sealed(changed).encode())
    return before


def _put(path: Path, content: bytes) -> None:
    beside = path.with_name("." + path.name)
    beside.write_bytes(content)
    beside.replace(path)


@dataclass(frozen=True)
class _Taken:
    seconds: float
    computing: float
    largest: int
    together: int
    lines: int


def _run(command: list[str], temporary: Path) -> _Taken:
    """Run a command, its output to a file, and watch the memory of it and all that it starts."""
    environment = {**os.environ, "BOB_HOME": os.fspath(temporary / "home")}
    with open(temporary / "out.txt", "w+b") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, env=environment)
        watch = _Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = sum(1 for _ in out)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}.")
    computing = usage.ru_utime + usage.ru_stime
    return _Taken(seconds, computing, usage.ru_maxrss * 1024, watch.peak, lines)


class _Watch:
    """Looks again and again at the memory of a process and its descendants together; shared pages count for each."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(_SAMPLED):
            self.peak = max(self.peak, sum(map(_resident, _family(self._pid))))


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        texts = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
    except OSError:
        return
    for child in " ".join(texts).split():
        yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _report(what: str, taken: _Taken, reading: float) -> None:
    print(
        f"{what}: {taken.seconds:.1f} s ({taken.computing:.1f} s of all cores), "
        f"{taken.seconds / reading:.2f} times the plain reading, "
        f"{taken.largest / 1e9:.2f} GB in one process, {taken.together / 1e9:.2f} GB together, {taken.lines:,} lines"
    )


if __name__ == "__main__":
    main()
