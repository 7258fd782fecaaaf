"""Meeting candidates: what opening and one batch take, what is stored already, and who is too slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bob.backbones.sources import resolve_backbones
from bob.catalogue import load_backbone_cards
from bob.data.sources import load_dataset
from bob.features.extract import Extraction
from bob.pick import meeting
from bob.pick.budget import Deadline
from bob.pick.entry import Entry
from bob.pick.meeting import meet, seconds_to_decode
from bob.pick.pool import Pool
from bob.task_cards import DataSpec

HOW = Extraction(torch.device("cpu"), workers=0)


@pytest.fixture
def pool(make_photos: Callable[..., Path], tmp_path: Path, home: Path) -> Pool:
    """Of 240 photographs."""
    return Pool(load_dataset(DataSpec(source=f"folder:{make_photos(tmp_path / 'photos', each=80)}")), seed=0)


def entries(*names: str) -> list[Entry]:
    return [Entry(card) for card in resolve_backbones(names, load_backbone_cards())]


def test_measured(pool: Pool) -> None:
    met = entries("pixels", "test_vit.random")
    meet(met, pool, HOW, Deadline(100.0))
    for entry in met:
        assert entry.cost is not None and entry.cost.per_image > 0 and entry.cost.lacking == (240, 60)
        assert entry.seconds > 0 and not entry.ended and entry.waits


def test_who_is_slow_is_left(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    original = meeting.open_backbone
    monkeypatch.setattr(
        meeting, "open_backbone", lambda card: time.sleep(100) if card.name == "constant" else original(card)
    )
    met = entries("constant", "pixels")
    meet(met, pool, HOW, Deadline(5.0))
    assert met[0].cost is None and "takes longer than" in met[0].ended and not met[0].waits
    assert met[1].cost is not None


def test_meeting_has_a_third_of_the_time(pool: Pool) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    met = entries("constant", "pixels", "test_vit.random")
    meet(met, pool, HOW, Deadline(16.0, clock))
    assert met[0].cost is not None
    assert met[-1].ended == "not met: a third of the time had gone on opening others"


def test_a_download_is_paid_for_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    original, opened = meeting.open_backbone, []

    def download(card: object) -> object:
        if not opened:
            time.sleep(1.0)
        opened.append(card)
        return original(card)  # type: ignore[arg-type]

    monkeypatch.setattr(meeting, "open_backbone", download)
    monkeypatch.setattr(meeting, "weights_status", lambda card: "not here; downloaded from x when first used")
    [entry] = met = entries("pixels")
    meet(met, pool, HOW, Deadline(100.0))
    assert entry.cost is not None and entry.cost.opening < 1.0 < entry.seconds


def test_decoding_is_shared_by_workers(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "granted_cores", lambda: 4)
    monkeypatch.setattr(type(pool.dataset.splits["train"].images), "read", lambda self, index: time.sleep(0.01))
    alone = seconds_to_decode(pool.dataset, Extraction(torch.device("cpu"), workers=1))
    shared = seconds_to_decode(pool.dataset, Extraction(torch.device("cpu"), workers=4))
    assert alone >= 0.01 and 2 < alone / shared < 8
