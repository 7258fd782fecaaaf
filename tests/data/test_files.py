"""Decoding gives PIL's pixels or one clear error; fingerprints follow the content and nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bob.data.files import FileImages, decode
from bob.data.loader import load_batches
from bob.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

JPEG = [
    *({}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"subsampling": 1}),
    *({"quality": 20}, {"quality": 100}),
]
ROTATED = Image.Exif()
ROTATED[0x0112] = 6
FILES = {
    "png": ("RGB", "PNG", {}),
    "png-grey": ("L", "PNG", {}),
    "png-alpha": ("RGBA", "PNG", {}),
    "png-grey-alpha": ("LA", "PNG", {}),
    "png-1bit": ("1", "PNG", {}),
    "png-palette": ("P", "PNG", {}),
    "png-palette-alpha": ("P", "PNG", {"transparency": 3}),
    "bmp": ("RGB", "BMP", {}),
    "bmp-palette": ("P", "BMP", {}),
    "gif": ("P", "GIF", {}),
    "webp": ("RGB", "WEBP", {}),
    "webp-alpha": ("RGBA", "WEBP", {"lossless": True}),
    "tiff": ("RGB", "TIFF", {}),
    "tiff-lzw": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff-cmyk": ("CMYK", "TIFF", {}),
    "ppm": ("RGB", "PPM", {}),
    "pgm": ("L", "PPM", {}),
    "pbm": ("1", "PPM", {}),
}


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pil(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def assert_as_pil(content: bytes) -> None:
    image = decode(content)
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image.permute(1, 2, 0), by_pil(content))


@pytest.mark.parametrize("options", JPEG, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_gives_the_very_pixels_of_pil(photograph, mode, options) -> None:
    assert_as_pil(encoded(photograph(1, (157, 83), mode), "JPEG", **options))


def test_jpeg_of_rare_colour_spaces(photograph) -> None:
    assert_as_pil(encoded(photograph(), "JPEG", keep_rgb=True))
    cmyk = encoded(photograph(mode="CMYK"), "JPEG")
    at = cmyk.find(b"\xff\xee")  # Adobe's marker; the last of its bytes is the colour transform
    end = at + 2 + int.from_bytes(cmyk[at + 2 : at + 4], "big")
    assert_as_pil(cmyk[:at] + cmyk[end:])
    assert_as_pil(cmyk[: end - 1] + b"\x02" + cmyk[end:])  # YCCK


@pytest.mark.parametrize("obstacle", ["refuses", "is gone"])
def test_jpeg_does_not_need_torchvision(photograph, monkeypatch, obstacle) -> None:
    import torchvision.io

    def refuse(*args, **kwargs):
        raise RuntimeError("Couldn't load the image extension.")

    if obstacle == "refuses":
        monkeypatch.setattr(torchvision.io, "decode_jpeg", refuse)
    else:
        monkeypatch.delattr(torchvision.io, "decode_jpeg")
    assert_as_pil(encoded(photograph(), "JPEG"))


@pytest.mark.parametrize(("mode", "kind", "options"), FILES.values(), ids=FILES)
def test_other_formats_give_the_pixels_of_pil(photograph, mode, kind, options) -> None:
    image = photograph().convert(mode) if mode in ("P", "1") else photograph(mode=mode)
    content = encoded(image, kind, **options)
    assert decode(content).shape == (3, 43, 61)
    assert_as_pil(content)


def test_animation_gives_its_first_picture(photograph) -> None:
    first, second = photograph(1).convert("P"), photograph(2).convert("P")
    content = encoded(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(content).permute(1, 2, 0), np.array(first.convert("RGB")))


def test_exif_rotation_is_not_applied(photograph) -> None:
    assert decode(encoded(photograph(), "JPEG", exif=ROTATED)).shape == (3, 43, 61)


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF"])
def test_16_bit_grey_keeps_its_range(kind) -> None:
    grey = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    image = decode(encoded(Image.fromarray(grey), kind))
    # Where PIL's own convert("RGB") is white from 256 on.
    np.testing.assert_array_equal(image, np.repeat((grey >> 8)[None], 3, axis=0))


def test_16_bit_colour_is_read_like_16_bit_grey() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = np.array([[[0x1234, 0x00FF, 0xFFFF]]], dtype=">u2")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" + pixels.tobytes()))
    content = b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")
    assert decode(content).flatten().tolist() == [0x12, 0x00, 0xFF]


def broken_files(photograph) -> dict[str, bytes]:
    jpeg, png = encoded(photograph(), "JPEG"), encoded(photograph(), "PNG")
    cuts = {f"jpeg[:{cut}]": jpeg[:cut] for cut in (1, 3, 20, 200, 620, len(jpeg) // 2, len(jpeg) - 40, len(jpeg) - 1)}
    return {
        **cuts,
        "zero bytes": b"",
        "text": b"This is no image.\n",
        "png[:half]": png[: len(png) // 2],
        "png header only": png[:8],
        "float": encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        "int32": encoded(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"),
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_ends_in_one_line_that_names_it(photograph, tmp_path, workers) -> None:
    contents = broken_files(photograph)
    photograph().save(tmp_path / "sound.jpg")
    for number, content in enumerate(contents.values()):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    for number in range(len(contents)) if workers == 0 else (0, 5, 8):
        images = FileImages(tmp_path, ["sound.jpg", f"{number}.jpg"], np.zeros(2))
        with pytest.raises(UserError) as caught:
            list(load_batches(images, [[0], [1]], lambda image: image, workers))
        assert f"{tmp_path / f'{number}.jpg'} (index 1)" in str(caught.value), list(contents)[number]
        assert "\n" not in str(caught.value)
        assert "BytesIO" not in str(caught.value)


def test_the_reason_is_told(photograph, tmp_path, monkeypatch) -> None:
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    photograph().save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    names = ["gone.jpg", "folder.jpg", "float.tif", "large.png"]
    images = FileImages(tmp_path, names, np.zeros(4))
    for index, reason in enumerate(["No such file", "Is a directory", "32-bit", "larger than PIL allows"]):
        with pytest.raises(UserError, match=reason):
            images.read(index)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG"])
def test_damage_gives_an_image_or_a_user_error(photograph, tmp_path, kind) -> None:
    rng = np.random.default_rng(0)
    sound = encoded(photograph(0, (40, 30)), kind)
    for number in range(60):
        content = bytearray(sound[: rng.integers(1, len(sound))] if number % 3 == 0 else sound)
        for place in rng.integers(0, min(len(content), 100), 3):
            content[place] = rng.integers(256)
        (tmp_path / "damaged").write_bytes(content)
        try:
            FileImages(tmp_path, ["damaged"], np.zeros(1)).read(0)
        except UserError as error:
            assert "damaged (index 0)" in str(error)


# Fingerprints


@pytest.fixture
def tree(tmp_path, bob_home, write_images) -> Path:
    return write_images(tmp_path / "tree", "a/1.png", "a/2.png", "b/3.png")


NAMES = ["a/1.png", "a/2.png", "b/3.png"]


def fingerprint(root: Path, names=NAMES, labels=(0, 0, 1)) -> str:
    return FileImages(root, names, np.array(labels[: len(names)])).fingerprint()


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The names of the files whose content is read, as it happens."""
    names = []
    real = hashlib.file_digest

    def spy(file, kind):
        names.append(Path(file.name).name)
        return real(file, kind)

    monkeypatch.setattr("bob.data.files.hashlib.file_digest", spy)
    return names


def test_fingerprint_follows_content_and_order_only(tree, tmp_path) -> None:
    first = fingerprint(tree)
    assert len(first) == 64
    assert fingerprint(tree, labels=(1, 0, 0)) == first
    assert fingerprint(tree, names=NAMES[::-1]) != first
    assert fingerprint(tree, names=NAMES[:2]) != first
    shutil.copytree(tree, tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == first
    shutil.copy(tree / "a/1.png", tree / "a/2.png")
    assert fingerprint(tree) != first


def test_unchanged_files_are_not_read_again(tree, hashed) -> None:
    first = fingerprint(tree)
    assert sorted(hashed) == ["1.png", "2.png", "3.png"]
    hashed.clear()
    assert fingerprint(tree) == first
    assert fingerprint(tree, names=NAMES[::-1]) != first
    assert hashed == []


def test_only_changed_files_are_read_again(tree, hashed, photograph) -> None:
    first = fingerprint(tree)
    hashed.clear()
    photograph(99, (8, 6)).save(tree / "a/2.png")
    changed = fingerprint(tree)
    assert changed != first
    assert hashed == ["2.png"]
    shutil.rmtree(os.environ["BOB_HOME"])
    assert fingerprint(tree) == changed


def test_a_change_that_leaves_size_and_time_alone_is_seen(tree) -> None:
    first = fingerprint(tree)
    path = tree / "b/3.png"
    before = path.stat()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert fingerprint(tree) != first


@pytest.mark.parametrize("damage", [b"", b"garbage", "half", "columns"])
def test_a_damaged_hash_cache_only_costs_time(tree, hashed, bob_home, damage) -> None:
    first = fingerprint(tree)
    (cache,) = (bob_home / "fingerprints").glob("*.parquet")
    if damage == "columns":
        import pandas as pd

        pd.DataFrame({"name": ["a/1.png"], "size": [1]}).to_parquet(cache)
    else:
        cache.write_bytes(cache.read_bytes()[:400] if damage == "half" else damage)
    hashed.clear()
    assert fingerprint(tree) == first
    assert len(hashed) == 3
    hashed.clear()
    assert fingerprint(tree) == first
    assert hashed == []


def test_sets_below_one_root_share_the_cache(tree, hashed) -> None:
    fingerprint(tree, names=NAMES[:1])
    fingerprint(tree, names=NAMES[1:])
    fingerprint(tree)
    assert sorted(hashed) == ["1.png", "2.png", "3.png"]


def test_a_deleted_file_is_named(tree) -> None:
    fingerprint(tree)
    (tree / "a/2.png").unlink()
    with pytest.raises(UserError, match=r"a/2\.png: No such file or directory\. Restore"):
        fingerprint(tree)


def test_links_are_followed(tree) -> None:
    first = fingerprint(tree)
    shutil.move(tree / "a/1.png", tree / "kept.png")
    (tree / "a/1.png").symlink_to(tree / "kept.png")
    assert fingerprint(tree) == first
    (tree / "kept.png").unlink()
    with pytest.raises(UserError, match=r"a/1\.png"):
        fingerprint(tree)
