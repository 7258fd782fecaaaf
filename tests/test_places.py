"""Files and folders appear whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import platformdirs
import pytest

from bob import places


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("BOB_HOME", "BOB_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_home(monkeypatch, tmp_path):
    assert places.home() == Path(platformdirs.user_cache_dir("bob"))
    monkeypatch.setenv("BOB_HOME", "")
    assert places.home() == Path(platformdirs.user_cache_dir("bob"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BOB_HOME", "~/there")
    assert places.home() == tmp_path / "there"


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("BOB_HOME", str(tmp_path))
    assert places.data_root() == tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BOB_DATA", "~/sets")
    assert places.data_root() == tmp_path / "sets"


def test_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    with places.atomic_file(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.startswith(".file.txt.")
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    for text in ("old", "new"):
        with places.atomic_file(path) as temporary:
            temporary.write_text(text)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), places.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_cannot_take_its_name_leaves_nothing(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"), places.atomic_file(path) as temporary:
        temporary.write_text("x")
    assert list(tmp_path.iterdir()) == [path] and path.is_dir()


def test_file_has_the_permissions_of_any_new_file(umask, tmp_path):
    with places.atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert mode(tmp_path / "file") == 0o666 & ~umask
    assert os.umask(umask) == umask


def test_many_writers_of_one_file(tmp_path):
    path, start = tmp_path / "file", threading.Barrier(8)

    def write(text):
        start.wait()
        with places.atomic_file(path) as temporary:
            temporary.write_text(text)

    threads = [threading.Thread(target=write, args=(str(i) * 10_000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = path.read_text()
    assert len(text) == 10_000 and len(set(text)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_folder_appears_whole(tmp_path):
    path = tmp_path / "deep" / "folder"
    with places.atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("x")
        (temporary / "link").symlink_to("nowhere")
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "x"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_no_folder(error, tmp_path):
    with pytest.raises(error), places.atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_folder_that_another_process_made_first_stays(tmp_path):
    path = tmp_path / "folder"
    with places.atomic_folder(path) as temporary:
        (temporary / "file").write_text("ours")
        path.mkdir()
        (path / "file").write_text("theirs")
    assert (path / "file").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_file_in_the_folders_place_is_an_error(tmp_path):
    path = tmp_path / "folder"
    path.write_text("a file")
    with pytest.raises(OSError), places.atomic_folder(path) as temporary:
        (temporary / "file").write_text("x")
    assert path.read_text() == "a file"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_has_the_permissions_of_any_new_folder(umask, tmp_path):
    with places.atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder" / "inner") == 0o777 & ~umask


def test_many_makers_of_one_folder(tmp_path):
    path, start = tmp_path / "folder", threading.Barrier(8)

    def make(text):
        start.wait()
        with places.atomic_folder(path) as temporary:
            for name in ("a", "b"):
                (temporary / name).write_text(text)

    threads = [threading.Thread(target=make, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (path / "a").read_text() == (path / "b").read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_long_names_fit(tmp_path):
    """The temporary name is longer than the name it stands for."""
    name = "x" * 250
    with places.atomic_file(tmp_path / name) as temporary:
        temporary.write_text("x")
    with places.atomic_folder(tmp_path / f"y{name}"):
        pass
    assert len(list(tmp_path.iterdir())) == 2
