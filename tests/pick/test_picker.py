"""`bob pick` end to end on small photographs and real small backbones: rungs, ties, resuming, and every mistake."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bob.backbones.sources import resolve_backbones
from bob.catalogue import load_backbone_cards, resolve_tasks
from bob.data.files import FileImages
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.pick import finetuning, meeting, picker, times
from bob.pick.budget import BudgetSpent, Deadline
from bob.pick.entry import Pick
from bob.pick.finetuning import Training
from bob.pick.picker import pick
from bob.pick.report import closing_lines, commands, printed, table
from bob.progress import Reporter
from bob.requested import Settings
from bob.results.reading import read_records

SMALL = ("pixels", "constant", "test_vit.random")
Run = Callable[..., Pick]


@pytest.fixture(scope="module")
def folder(make_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 photographs, 180 of them learnt from, so that there are two levels."""
    return make_photos(tmp_path_factory.mktemp("photos"), each=80)


@pytest.fixture
def run(folder: Path, home: Path, tmp_path: Path) -> Run:
    """Pick for the folder; the clock stands still unless another is given, so that plans are always the same."""

    def go(names: Sequence[str] = SMALL, budget: float = 8.0, deadline: Deadline | None = None, **options: Any) -> Pick:
        settings = Settings(tmp_path / "results", Extraction(torch.device("cpu"), workers=0))
        return pick(
            resolve_tasks([f"folder:{folder}"], {})[0],
            resolve_backbones(names, load_backbone_cards()),
            settings,
            deadline or Deadline(budget, clock=lambda: 0.0),
            Reporter(quiet=True),
            **{"finetune": False, **options},
        )

    return go


def stages(found: Pick) -> dict[str, tuple[int, bool]]:
    """Rungs before the last that each candidate was scored in, and whether it came to the last."""
    return {entry.name: (len(entry.scores), entry.linear is not None) for entry in found.ranked}


def test_with_time_enough_all_are_tested_on_all(run: Run) -> None:
    found = run(budget=1000.0)
    assert stages(found) == dict.fromkeys(SMALL, (0, True))
    assert (found.ranked[-1].name == "constant" and found.tied == {"pixels", "test_vit.random"}) or found.best


def test_with_less_time_halving_drops_the_worst(run: Run, tmp_path: Path) -> None:
    found = run(top=1)
    by_name = stages(found)
    assert by_name["constant"] == (1, False)
    assert by_name[found.best.name] == (1, True)
    ended = {entry.name: entry.ended for entry in found.ranked}
    assert "known to be worse than the best on 60 images" in ended["constant"]
    assert {record.request.protocol["name"] for record in read_records(tmp_path / "results")} == {"linear"}


def test_the_answer_in_words(run: Run) -> None:
    found = run(top=1)
    shown = table(found)
    assert shown["rank"].tolist() == [1, 2, 3] and shown["score"].between(shown["low"], shown["high"]).all()
    assert [row[1] for row in printed(found)] == [entry.name for entry in found.ranked]
    lines = "\n".join(closing_lines(found))
    assert found.best.name in lines and "of 8.0 s spent" in lines
    assert commands(found)[0].startswith(f"bob run --backbone {found.best.name} --task folder:")


def test_the_same_again_computes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(budget=1000.0)
    reads: list[int] = []
    original = FileImages.read
    monkeypatch.setattr(FileImages, "read", lambda self, index: reads.append(index) or original(self, index))
    second = run(budget=1000.0)
    assert [(e.name, e.linear.record.run_id) for e in first.ranked if e.linear] == [
        (e.name, e.linear.record.run_id) for e in second.ranked if e.linear
    ]
    assert len(reads) == 16  # to see how long decoding takes


def test_time_that_is_up_leaves_an_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original, tested = picker.test_on_all, []

    def slow(ground: Any, entry: Any) -> None:
        if tested:
            time.sleep(100)
        tested.append(entry.name)
        original(ground, entry)

    monkeypatch.setattr(picker, "test_on_all", slow)
    monkeypatch.setattr(times, "_GUESSES", dict.fromkeys(("few", "folds", "linear"), 0.1))
    started = time.monotonic()
    found = run(deadline=Deadline(8.0), top=3)
    assert time.monotonic() - started < 8.0
    assert "The time was up before all that was planned was done." in found.notes
    ended = [entry.ended for entry in [*found.ranked]] + list(found.untried.values())
    assert "the time was up in the midst of it; what it has computed is kept" in ended


def test_nothing_begins_that_is_predicted_not_to_fit(run: Run) -> None:
    # The linear protocol is guessed to take 2.8 s here; the rung before it, a fraction of a second.
    found = run(budget=3.5, top=1)
    assert all(entry.linear is None for entry in found.ranked)
    assert "240 images would take about" in found.best.ended
    assert "--protocol linear" in "\n".join(commands(found))


def test_too_small_for_anything(run: Run) -> None:
    with pytest.raises(UserError, match=r"A budget of 1\.1 s is too small for any score") as caught:
        run(budget=1.1)
    assert caught.value.remedy.startswith("Give a longer --budget")


def test_one_that_cannot_be_opened_stops_no_other(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = tmp_path / "broken.py"
    code.write_text("def make():\n    raise RuntimeError('no')\n")
    found = run(["pixels", f"{code}:make"], budget=1000.0)
    assert [entry.name for entry in found.ranked] == ["pixels"]
    assert "no" in found.untried[f"{code}:make"]
    with pytest.raises(UserError, match="No candidate can be used"):
        run([f"{code}:make"], budget=1000.0)


def test_one_without_numbers_stops_no_other(run: Run, tmp_path: Path) -> None:
    code = tmp_path / "nan.py"
    code.write_text(
        "import torch\n\nclass Nan(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x.mean(dim=(2, 3)) * float('nan')\n\ndef make():\n    return Nan()\n"
    )
    found = run(["pixels", f"{code}:make"], budget=1000.0)
    assert "NaN or infinite" in found.untried[f"{code}:make"]


def test_fine_tuning_at_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Training(1.0, {"epochs": "1", "warmup_epochs": "0", "lr": "1e-4", "batch_size": "32"})
    monkeypatch.setattr(finetuning, "what_fits", lambda entry, dataset, deadline: short)
    found = run(["test_vit.random"], budget=1000.0, finetune=True)
    assert found.best.finetune is not None
    assert found.best.finetune.record.request.protocol["name"] == "finetune"
    assert table(found)["fine-tuned"][0] == found.best.finetune.top1
    assert not any("--protocol finetune" in command for command in commands(found))


def test_a_worse_one_is_not_fine_tuned_for_being_cheap(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def too_long(entry: Any, dataset: Any, deadline: Any) -> str:
        asked.append(entry.name)
        return "it takes too long"

    monkeypatch.setattr(finetuning, "what_fits", too_long)
    found = run(["pixels", "constant"], budget=1000.0, finetune=True)
    assert asked == ["pixels"] == [found.best.name]
    assert found.notes == ("pixels was not fine-tuned: it takes too long.",)


def test_fine_tuning_that_does_not_fit_is_said(run: Run) -> None:
    found = run(["test_vit.random"], budget=12.0, finetune=True)
    assert found.best.linear is not None
    [note] = found.notes
    assert note.startswith("test_vit.random was not fine-tuned: the recipe would take about")


def test_the_budget_is_for_the_data_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picker, "load_task", lambda *_: time.sleep(100))
    with pytest.raises(UserError, match="it was up before a candidate was opened"):
        run(deadline=Deadline(1.2))


def test_time_up_is_no_exception_that_others_catch() -> None:
    assert not issubclass(BudgetSpent, Exception)


def test_what_was_thought_too_slow_has_a_second_chance(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = meeting.seconds_to_embed
    # On one batch of noise everything looked slow; on real images it is not.
    monkeypatch.setattr(meeting, "seconds_to_embed", lambda *given: 0.02 + original(*given))
    monkeypatch.setattr(times, "_GUESSES", dict.fromkeys(("few", "folds", "linear"), 0.1))
    found = run(top=1)
    assert {entry.name for entry in found.ranked} == set(SMALL)


def test_slowness_is_learnt() -> None:
    learnt = times.ProbeTimes()
    assert learnt.extraction == 1.0
    learnt.extracted(0.1, 0.05)
    assert learnt.extraction == 0.5
    learnt.extracted(0.1, 0.08)
    learnt.extracted(0.01, 5.0)
    assert learnt.extraction == pytest.approx(0.8)
    learnt.measured("few", 950, 2.0)
    assert learnt.predicted("few", 950) == pytest.approx(2.0)
    assert learnt.predicted("few", 1950) == pytest.approx(4.0)
