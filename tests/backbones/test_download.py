"""Downloads over a real connection: resumed, checked, atomic, one at a time, and refused in one line."""

import errno
import hashlib
import http.server
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from bob.backbones.download import cached, fetch, is_url
from bob.backbones.sources import open_backbone, resolve_backbone, weights_status

BODY = bytes(range(256)) * 20_000  # five reads
HALF = len(BODY) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `body`, and misbehaves as the server's `ways` say, one for each request."""

    def do_GET(self):
        server = self.server
        server.requests.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
        way = server.ways.pop(0) if server.ways else "well"
        if way == "404":
            return self.send_error(404)
        if way == "silent":
            return time.sleep(1)
        if way.startswith("to "):
            self.send_response(302)
            self.send_header("Location", way.removeprefix("to "))
            return self.end_headers()
        start = self._start() if way != "no ranges" else 0
        if start >= len(server.body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self._headers(start, way)
        part = server.body[start:]
        self.wfile.write(part[: len(part) // 2] if way == "half" else part)

    def _start(self):
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (self.server.etag, None)
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked and same else 0

    def _headers(self, start, way):
        server = self.server
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            shown = 0 if way == "other range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(server.body) - 1}/{len(server.body)}")
        if way == "html":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        if way != "no length":
            self.send_header("Content-Length", str(10**18 if way == "huge" else len(server.body) - start))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of `BODY` on this machine, and an empty cache; `server.url` names the file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that has hung up, as some tests do
    server.body, server.etag, server.ways, server.requests = BODY, '"v1"', [], []
    server.url = f"http://127.0.0.1:{server.server_port}/method/resnet50.pth"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def partial(url):
    return Path(f"{cached(url)}.partial")


def left(url):
    """What lies beside the file, the lock aside."""
    return sorted(path.name for path in cached(url).parent.iterdir() if path.suffix != ".lock")


def test_url_is_mirrored_in_torch_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    assert cached("https://a.org/vicreg/resnet50.pth") == folder / "a.org" / "vicreg" / "resnet50.pth"
    assert cached("https://a.org:8080/x%20y.pth") == folder / "a.org_8080" / "x y.pth"
    one, two = cached("https://a.org/get?id=1"), cached("https://a.org/get?id=2")
    assert one != two and one.parent == two.parent == folder / "a.org"


@pytest.mark.parametrize(
    "url",
    ["https://", "https://a.org", "https://a.org/", "https://a.org/%2e%2e/x", "https://a.org:x/w.pth", "https://[a/w"],
)
def test_url_without_a_file_is_refused(url, refused):
    with refused(url, "names no file"):
        cached(url)


def test_what_is_a_url():
    assert is_url("https://a.org/w.pth") and is_url("HTTP://a.org/w.pth")
    assert not any(map(is_url, (None, "", "w.pth", "/a/w.pth", "package:a/w.pth", "C:\\w.pth")))


@pytest.mark.parametrize("way", ["well", "no length"])
def test_file_arrives_whole_and_once(way, server, capfd):
    server.ways = [way]
    path = fetch(server.url)
    assert path == cached(server.url) and path.read_bytes() == BODY
    assert fetch(server.url) == path and len(server.requests) == 1
    assert left(server.url) == ["resnet50.pth"]
    out, err = capfd.readouterr()
    assert out == "" and "resnet50.pth" in err


def test_broken_transfer_goes_on_where_it_stopped(server):
    server.ways = ["half", "half"]
    assert fetch(server.url).read_bytes() == BODY
    asked = [(request.get("range"), request.get("if-range")) for request in server.requests]
    assert asked == [(None, None), (f"bytes={HALF}-", '"v1"'), (f"bytes={HALF + HALF // 2}-", '"v1"')]


def test_next_call_goes_on_where_the_last_one_gave_up(server, refused):
    server.ways = ["half", "half", "half"]
    with refused(server.url, "broke off", "Run it again"):
        fetch(server.url)
    assert not cached(server.url).exists()
    have = partial(server.url).stat().st_size
    assert 0 < have < len(BODY)
    assert fetch(server.url).read_bytes() == BODY
    assert server.requests[-1]["range"] == f"bytes={have}-"
    assert left(server.url) == ["resnet50.pth"]


@pytest.mark.parametrize("ways", [["half", "no ranges"], ["half", "other range"]])
def test_server_that_does_not_do_ranges_starts_over(ways, server):
    server.ways = list(ways)
    assert fetch(server.url).read_bytes() == BODY


def test_other_version_of_the_file_starts_over(server, refused):
    server.ways = ["half"] * 3
    with refused("broke off"):
        fetch(server.url)
    server.body, server.etag = BODY[::-1], '"v2"'
    assert fetch(server.url).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_without_a_version_nothing_is_resumed(etag, server):
    server.etag, server.ways = etag, ["half"]
    assert fetch(server.url).read_bytes() == BODY
    assert "range" not in server.requests[1]


def test_shorter_file_than_the_partial_one_starts_over(server):
    partial(server.url).parent.mkdir(parents=True)
    partial(server.url).write_bytes(BODY * 2)
    Path(f"{partial(server.url)}.validator").write_text('"v1"')
    assert fetch(server.url).read_bytes() == BODY


def test_checksum_is_checked_before_the_file_is_in_place(server, refused):
    right, wrong = hashlib.sha256(BODY).hexdigest(), "0" * 64
    with refused(server.url, "SHA-256", right[:12], wrong[:12]):
        fetch(server.url, wrong)
    assert left(server.url) == []
    assert fetch(server.url, right).read_bytes() == BODY


def test_what_the_server_refuses_is_one_line(server, refused):
    server.ways = ["404"]
    with refused(server.url, "404", "curl -LO", cached(server.url)):
        fetch(server.url)
    server.ways = ["html"]
    with refused(server.url, "web page"):
        fetch(server.url)
    assert left(server.url) == []


def test_redirects_are_followed_but_not_to_http(server, refused):
    other = server.url.replace("method", "elsewhere")
    server.ways = [f"to {other}"]
    assert fetch(server.url).read_bytes() == BODY
    assert server.requests[-1]["path"] == "/elsewhere/resnet50.pth"
    cached(server.url).unlink()
    server.ways = ["to http://example.org/resnet50.pth"]
    with refused("http://example.org/resnet50.pth", "not https"):
        fetch(server.url)
    with refused("http://example.org/w.pth", "not https"):
        fetch("http://example.org/w.pth")


def test_no_network_says_where_to_put_the_file(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    url = "http://127.0.0.1:9/w.pth"
    with refused(url, "refused", "curl -LO", cached(url)):
        fetch(url)
    cached(url).write_bytes(b"by hand")
    assert fetch(url).read_bytes() == b"by hand"


def test_offline_switch(server, monkeypatch, refused):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused("HF_HUB_OFFLINE", cached(server.url)):
        fetch(server.url)
    assert not server.requests


def test_server_that_falls_silent_is_left(server, monkeypatch, refused):
    monkeypatch.setattr("bob.backbones.download._TIMEOUT", 0.2)
    server.ways = ["silent"]
    with refused(server.url, "timed out"):
        fetch(server.url)


def test_disk_that_is_too_small_is_told_before(server, refused):
    server.ways = ["huge"]
    with refused(cached(server.url), "1000000000.0 GB are needed", "TORCH_HOME"):
        fetch(server.url)
    assert left(server.url) == []


def test_disk_that_fills_up_leaves_no_file(server, monkeypatch, refused):
    def full(response, file, start, total):
        file.write(response.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bob.backbones.download._copy", full)
        with refused(cached(server.url), "No space left", "TORCH_HOME"):
            fetch(server.url)
    assert not cached(server.url).exists()
    assert fetch(server.url).read_bytes() == BODY
    assert server.requests[-1]["range"] == "bytes=1000-"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_cache_that_cannot_be_written(server, tmp_path, refused):
    (tmp_path / "torch").mkdir(mode=0o500)
    with refused("Permission denied", "TORCH_HOME"):
        fetch(server.url)


def test_interruption_leaves_what_has_arrived(server, monkeypatch):
    from bob.backbones import download

    whole = download._read

    def interrupted(response):
        if response.length < len(BODY):
            raise KeyboardInterrupt
        return whole(response)

    with monkeypatch.context() as patch:
        patch.setattr("bob.backbones.download._read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(server.url)
    assert not cached(server.url).exists() and partial(server.url).stat().st_size == 1 << 20
    assert fetch(server.url).read_bytes() == BODY
    assert server.requests[-1]["range"] == f"bytes={1 << 20}-"


def _fetch_in_a_process(url, results):
    results.put(fetch(url).read_bytes() == BODY)


def test_two_processes_download_once(server):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_fetch_in_a_process, args=(server.url, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [True, True]
    for process in processes:
        process.join()
    assert len(server.requests) == 1 and left(server.url) == ["resnet50.pth"]


def test_card_with_a_url_opens(server, checkpoints, make_card, refused):
    server.body = (checkpoints / "plain.pth").read_bytes()
    card = make_card("checkpoint", model="test_resnet", file=server.url)
    assert weights_status(card) == f"not here; downloaded from {server.url} when first used"
    state = open_backbone(card).model.state_dict()
    expected = torch.load(checkpoints / "plain.pth", weights_only=True)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert weights_status(card) == f"here, {cached(server.url)}"
    spec = resolve_backbone(f"timm:test_resnet@{server.url}", {})
    assert open_backbone(spec).weights_sha256() == open_backbone(card).weights_sha256()
    with refused("SHA-256"):
        open_backbone(make_card("checkpoint", model="test_resnet", file=server.url, sha256="0" * 64))
