"""The store gives back what was written, never anything half-written, whatever is killed, damaged or done at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from bob.features import store as store_module
from bob.features.store import FeatureStore, ShardCost, list_stores

ROWS, WIDTH = 21, 3
IDENTITY = {"backbone": {"model": "tests:tiny"}, "images_sha256": "abc"}
FEATURES = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "features"


@pytest.fixture
def store(root) -> FeatureStore:
    return FeatureStore(IDENTITY, ROWS, WIDTH, root)


def write(store: FeatureStore, *numbers: int, features: np.ndarray = FEATURES) -> None:
    for number, rows in store.shards():
        if number in numbers:
            store.write(number, features[rows.start : rows.stop], ShardCost(len(rows), 2.0, 0.5))


def missing(store: FeatureStore) -> list[int]:
    return [number for number, _ in store.missing()]


def marks(store: FeatureStore) -> list[Path]:
    return sorted((store.path / "marks").iterdir())


def test_shards_cover_the_rows(store) -> None:
    assert list(store.shards()) == [(0, range(0, 8)), (1, range(8, 16)), (2, range(16, 21))]


def test_nothing_is_written_by_asking(store, root) -> None:
    assert missing(store) == [0, 1, 2]
    assert store.cost() == ShardCost(0, 0, 0)
    store.clear()
    with pytest.raises(RuntimeError, match="lacks 3 shards"):
        store.read()
    assert list_stores(root) == []
    assert not root.exists()


def test_what_is_written_is_read_back(store, root) -> None:
    write(store, 0, 1, 2)
    assert missing(store) == []
    read = store.read()
    np.testing.assert_array_equal(read, FEATURES)
    assert read.dtype == np.float32
    assert isinstance(read, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1
    np.testing.assert_array_equal(FeatureStore(IDENTITY, ROWS, WIDTH, root).read(), FEATURES)
    np.testing.assert_array_equal(np.load(store.path / "features.npy"), FEATURES)


def test_any_order_and_any_type(store) -> None:
    write(store, 2, features=FEATURES.astype(np.float64))
    assert missing(store) == [0, 1]
    write(store, 0, features=np.asfortranarray(FEATURES))
    write(store, 1, features=FEATURES.astype(">f4"))
    np.testing.assert_array_equal(store.read(), FEATURES)


def test_reading_before_all_is_there(store) -> None:
    write(store, 0, 2)
    with pytest.raises(RuntimeError, match="lacks 1 shards"):
        store.read()


@pytest.mark.parametrize("shape", [(8, 4), (7, 3), (9, 3), (24,), (8, 3, 1)])
def test_a_wrong_shape(store, root, shape) -> None:
    with pytest.raises(ValueError, match=r"Expected shard 1 of shape \(8, 3\), but got"):
        store.write(1, np.zeros(shape), ShardCost(8, 1.0, 0.0))
    assert not root.exists()


def test_the_default_place(home) -> None:
    store = FeatureStore(IDENTITY, ROWS, WIDTH)
    assert store.path.parent == home / "features"


@pytest.mark.parametrize(
    "other",
    [
        ({**IDENTITY, "images_sha256": "abd"}, ROWS, WIDTH),
        ({**IDENTITY, "precision": "bfloat16"}, ROWS, WIDTH),
        (IDENTITY, ROWS + 1, WIDTH),
        (IDENTITY, ROWS, WIDTH + 1),
    ],
)
def test_another_identity_is_another_folder(store, root, other) -> None:
    write(store, 0, 1, 2)
    second = FeatureStore(*other, root)
    assert second.path != store.path
    assert len(second.missing()) == len(list(second.shards()))


def test_the_order_of_an_identity_does_not_matter(store, root) -> None:
    assert FeatureStore(dict(reversed(IDENTITY.items())), ROWS, WIDTH, root).path == store.path
    write(store, 0)
    stored = json.loads((store.path / "identity.json").read_text())
    assert stored == {**IDENTITY, "format": store_module.FORMAT, "rows": ROWS, "width": WIDTH}


def test_a_damaged_shard_is_missing_and_no_other(store) -> None:
    write(store, 0, 1, 2)
    with (store.path / "features.npy").open("r+b") as file:
        file.seek(-(13 * WIDTH * 4), os.SEEK_END)  # row 8, the first of shard 1
        file.write(b"\x01")
    assert missing(store) == [1]
    with pytest.raises(RuntimeError):
        store.read()
    write(store, 1)
    np.testing.assert_array_equal(store.read(), FEATURES)


@pytest.mark.parametrize("content", ["", "{", "null", '{"images": 8}', '{"sha256": "0"}'])
def test_a_damaged_mark_is_no_mark(store, content) -> None:
    write(store, 0, 1, 2)
    marks(store)[1].write_text(content)
    assert missing(store) == [1]


def test_rows_without_a_mark_do_not_count(store, monkeypatch) -> None:
    write(store, 0)

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("bob.places.atomic_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write(store, 1)
    np.testing.assert_array_equal(np.load(store.path / "features.npy")[8:16], FEATURES[8:16])
    assert missing(store) == [1, 2]


def test_a_mark_without_its_rows_does_not_count(store) -> None:
    write(store, 0, 1, 2)
    shutil.copy(marks(store)[0], marks(store)[1])
    assert missing(store) == [1]


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "garbage", "header", "other shape", "other type"])
def test_a_store_damaged_as_a_whole_is_made_anew(store, damage) -> None:
    write(store, 0, 1, 2)
    array = store.path / "features.npy"
    content = array.read_bytes()
    if damage == "absent":
        array.unlink()
    elif damage == "other shape":
        np.save(array, FEATURES[:-1])
    elif damage == "other type":
        np.save(array, FEATURES.astype(np.float64))
    else:
        broken = {"empty": b"", "cut": content[:200], "garbage": b"x" * 300, "header": b"x" + content[1:]}
        array.write_bytes(broken[damage])
    assert missing(store) == [0, 1, 2]
    with pytest.raises(RuntimeError):
        store.read()
    write(store, 1)
    assert missing(store) == [0, 2]
    write(store, 0, 2)
    np.testing.assert_array_equal(store.read(), FEATURES)
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


def test_any_damage_to_the_header_is_noticed(store) -> None:
    write(store, 0, 1, 2)
    array = store.path / "features.npy"
    content = array.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(content)
        for place in rng.integers(0, 128, 2):
            broken[place] = rng.integers(256)
        array.write_bytes(broken)
        if not missing(store):
            np.testing.assert_array_equal(store.read(), FEATURES)


def test_clear_forgets_all(store) -> None:
    write(store, 0, 1, 2)
    store.clear()
    assert missing(store) == [0, 1, 2]
    assert store.cost().images == 0
    write(store, 0, 1, 2, features=FEATURES + 1)
    np.testing.assert_array_equal(store.read(), FEATURES + 1)


def test_cost_adds_up(store) -> None:
    write(store, 0, 2)
    assert store.cost() == ShardCost(13, 4.0, 1.0)
    assert store.cost().images_per_second == 13 / 4
    assert ShardCost(0, 0.0, 0.0).images_per_second == 0


# A full disk


def full(*args) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_room_shows_before_the_first_shard_and_leaves_nothing(store, root, monkeypatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    for attempt in (store.create, lambda: write(store, 0)):
        with pytest.raises(OSError, match="No space left"):
            attempt()
        assert list(root.iterdir()) == []
    monkeypatch.undo()


def test_all_room_is_taken_at_once(root, monkeypatch) -> None:
    monkeypatch.setattr("bob.features.store.SHARD_ROWS", 256)
    store = FeatureStore(IDENTITY, 1000, 500, root)
    store.create()
    array = (store.path / "features.npy").stat()
    assert array.st_blocks * 512 >= 1000 * 500 * 4
    assert len(store.missing()) == 4


def test_a_disk_that_fills_up_later_keeps_what_is_finished(store, monkeypatch) -> None:
    write(store, 0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(store, 1)
    monkeypatch.undo()
    monkeypatch.setattr("bob.features.store.SHARD_ROWS", 8)
    assert missing(store) == [1, 2]
    assert [path.name for path in marks(store)] == ["000000.json"]


# Several writers


def test_a_finished_shard_stays_as_it_is(store) -> None:
    write(store, 0, 1, 2)
    write(store, 1, features=FEATURES + 1e-6)
    np.testing.assert_array_equal(store.read(), FEATURES)


def test_a_file_system_without_locks(store, monkeypatch) -> None:
    def unsupported(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    write(store, 0, 1, 2)
    np.testing.assert_array_equal(store.read(), FEATURES)


def test_creating_and_writing_at_once(root) -> None:
    for attempt in range(5):
        identity = {**IDENTITY, "attempt": attempt}
        barrier = threading.Barrier(6)
        failures = []

        def work(offset: int, identity=identity, barrier=barrier, failures=failures) -> None:
            try:
                store = FeatureStore(identity, ROWS, WIDTH, root)
                barrier.wait()
                store.create()
                # Each writer's rows differ by its own rounding.
                write(store, 0, 1, 2, features=FEATURES + offset / 100)
                read = store.read()
                assert np.abs(read - FEATURES).max() < 0.1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(offset,)) for offset in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        store = FeatureStore(identity, ROWS, WIDTH, root)
        for _, rows in store.shards():  # of one writer, never mixed
            assert len(np.unique((store.read() - FEATURES)[rows.start : rows.stop].round(2))) == 1
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


# The list of stores


def test_list_of_stores(root) -> None:
    small = FeatureStore(IDENTITY, ROWS, WIDTH, root)
    large = FeatureStore({"backbone": {"model": "tests:large"}}, 300, WIDTH, root)
    write(small, 0, 2)
    large.create()
    first, second = list_stores(root)
    assert (first.path, first.model, first.rows, first.width, first.finished) == (
        *(large.path, "tests:large", 300, WIDTH),
        0,
    )
    assert (second.path, second.model, second.rows, second.finished) == (small.path, "tests:tiny", ROWS, 2)
    assert first.size > second.size > ROWS * WIDTH * 4


# Half precision


def test_half_precision_is_another_store(root, store) -> None:
    half = FeatureStore(IDENTITY, ROWS, WIDTH, root, dtype="float16")
    assert half.path != store.path
    assert (half.row_bytes, store.row_bytes) == (2 * WIDTH, 4 * WIDTH)
    write(half, 0, 1, 2)
    assert half.read().dtype == np.float16
    np.testing.assert_array_equal(half.read(), FEATURES)
    assert json.loads((half.path / "identity.json").read_text())["dtype"] == "float16"


def test_shards_of_large_rows_are_small(root, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 5 * 2 * WIDTH)
    half = FeatureStore(IDENTITY, ROWS, WIDTH, root, dtype="float16")
    assert [len(rows) for _, rows in half.shards()] == [5, 5, 5, 5, 1]
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 1)
    assert len(list(half.shards())) == ROWS
    assert len(list(FeatureStore(IDENTITY, ROWS, WIDTH, root).shards())) == 3  # as ever


def test_the_place_of_a_plain_store_is_as_ever(root) -> None:
    # SHA-256 of {"backbone": {"model": "tests:tiny"}, "format": 1, ...}, sorted, with an indent of 1.
    assert FeatureStore(IDENTITY, ROWS, WIDTH, root).path.name == "bafb1886b8c5df664d675e6b"
