"""A dry run says what would be done, and does none of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bob.catalogue import load_backbone_cards, resolve_tasks
from bob.data.sources import load_task
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.plan import PlannedPair, plan, seconds_per_image
from bob.progress import Reporter
from bob.requested import Settings
from bob.run import run_all
from bob.workbench import Workbench

HOW = Extraction(torch.device("cpu"), workers=0)


@pytest.fixture
def arguments(home: Path, photos: Path) -> Callable[..., tuple[Any, ...]]:
    cards = load_backbone_cards()

    def make(*names: str, **settings: Any) -> tuple[Any, ...]:
        tasks = resolve_tasks([f"folder:{photos}"], {})
        return [cards[name] for name in names], tasks, Settings(Path("results"), HOW, **settings)

    return make


def _counts(pair: PlannedPair) -> tuple[int, int, int, int]:
    return pair.runs, pair.present, pair.images, pair.to_embed


def test_counts_follow_what_is_there(arguments: Callable[..., Any]) -> None:
    constant, pixels = plan(*arguments("constant", "pixels", seeds=(0, 1)))
    assert _counts(constant) == _counts(pixels) == (4, 0, 30, 30)
    assert (constant.bytes_per_image, pixels.bytes_per_image) == (4, 4 * 3072)
    assert pixels.seconds > 0
    run_all(*arguments("pixels", protocols=("knn",)), Reporter(quiet=True))
    constant, pixels = plan(*arguments("constant", "pixels", seeds=(0, 1)))
    assert _counts(constant) == (4, 0, 30, 30)
    assert _counts(pixels) == (4, 1, 30, 0) and pixels.seconds == 0


def test_nothing_to_do_needs_no_features(arguments: Callable[..., Any], home: Path) -> None:
    from bob.features.store import list_stores

    run_all(*arguments("pixels", protocols=("knn",)), Reporter(quiet=True))
    for store in list_stores():
        (store.path / "features.npy").unlink()
    assert _counts(plan(*arguments("pixels", protocols=("knn",)))[0]) == (1, 1, 30, 0)
    assert _counts(plan(*arguments("pixels", protocols=("linear",)))[0]) == (1, 0, 30, 30)


def test_recompute_counts_everything(arguments: Callable[..., Any]) -> None:
    run_all(*arguments("pixels", protocols=("knn",)), Reporter(quiet=True))
    assert _counts(plan(*arguments("pixels", protocols=("knn",), recompute=True))[0]) == (1, 0, 30, 30)


def test_other_crops_are_another_pass(arguments: Callable[..., Any]) -> None:
    assert _counts(plan(*arguments("pixels", protocols=("knn", "knn@patches4")))[0]) == (2, 0, 60, 60)


def test_maps_are_counted_in_half_precision(arguments: Callable[..., Any]) -> None:
    from bob.backbones.sources import open_backbone, resolve_backbone
    from bob.features.reading import Reading

    backbone = open_backbone(resolve_backbone("timm:test_vit.random", load_backbone_cards()))
    own, large = Reading("maps"), Reading("maps", size=(320, 320))
    assert (own.forwards(backbone), large.forwards(backbone)) == (1, 4)  # the network's own input is of 160 px
    _, tasks, settings = arguments()
    dataset = load_task(tasks[0], None)
    bench = Workbench(backbone, backbone.identity(), tasks[0], dataset, settings)
    for reading, positions in ((own, 100), (large, 400)):
        ((_, stores),) = bench.stores([reading])
        assert stores[reading].row_bytes == 2 * positions * 64


def test_writes_neither_records_nor_features(arguments: Callable[..., Any], home: Path) -> None:
    plan(*arguments("constant", "pixels"))
    assert not Path("results").exists()
    assert not (home / "features").exists()


def test_unknown_protocol(arguments: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="Unknown protocol 'linaer'"):
        plan(*arguments("constant", protocols=("linaer",)))


def test_seconds_per_image_times_the_forward_pass() -> None:
    from bob.backbones.sources import open_backbone

    backbone = open_backbone(load_backbone_cards()["pixels"])
    assert 0 < seconds_per_image(backbone, HOW) < 1


def test_a_protocol_of_the_other_kind_of_task(arguments: Callable[..., Any]) -> None:
    backbones, tasks, settings = arguments("constant", protocols=("ridge@5shot",))
    several = [tasks[0].model_copy(update={"adapter": "multilabel", "primary": "map", "metrics": ("map",)})]
    with pytest.raises(UserError, match=r"'ridge' is not for tasks of the kind multilabel.* Use one of .*linear_sgd"):
        plan(backbones, several, settings)


def test_a_protocol_that_does_not_suit_is_told_beside_the_plan(arguments: Callable[..., Any]) -> None:
    pair = plan(*arguments("constant", protocols=("zero_shot", "knn", "attentive")))[0]
    assert _counts(pair) == (1, 0, 30, 30)
    assert len(pair.failures) == 2 and "no text tower" in pair.failures[0] and "no blocks" in pair.failures[1]
