"""A repository's files come from its cache or its hub, and every way of not getting them is one line."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bob.backbones.hub import commit_of, fetch, lacks, local_folder, status
from bob.cards import Weights

COMMIT = "d" * 40
FILES = {"config.json": b'{"a": 1}', "model.safetensors": b"tensors", "flax_model.msgpack": b"others"}


def at(model, **keys):
    return Weights(source="transformers", model=model, **keys)


@pytest.fixture
def serve(hub, monkeypatch):
    """A context in which a hub on this machine has one repository, or answers everything with an error."""

    @contextmanager
    def serve_(error=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                file = path.rpartition("/")[2]
                if error is not None:
                    status, code = error
                    return self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": "no"})
                if "/tree/" in path:
                    tree = [{"type": "file", "path": f, "size": len(b), "oid": f} for f, b in FILES.items()]
                    return self.answer(200, json.dumps(tree).encode())
                if path.startswith("/api/models/"):
                    siblings = [{"rfilename": name} for name in FILES]
                    return self.answer(200, json.dumps({"id": "me/net", "sha": COMMIT, "siblings": siblings}).encode())
                body = FILES.get(file)
                if body is None:
                    return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                asked.append(file)
                return self.answer(200, body, {"ETag": f'"{file}"', "X-Repo-Commit": COMMIT})

            do_HEAD = do_GET

            def answer(self, status, body, headers=()):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        asked = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        try:
            yield asked
        finally:
            server.shutdown()
            server.server_close()

    return serve_


def test_files_are_downloaded_once_and_then_cached(serve, hub, monkeypatch):
    with serve() as asked:
        folder = fetch(at("me/net"), ["config.json", "*.safetensors"])
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
        assert folder.is_relative_to(hub) and commit_of(folder) == COMMIT
        asked.clear()
        assert fetch(at("me/net"), ["config.json", "*.safetensors"]) == folder
        assert "model.safetensors" not in asked
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for revision in ("", "main", COMMIT):
        assert fetch(at("me/net", revision=revision), ["config.json"]) == folder
    assert status(at("me/net"), ["model.safetensors"]) == f"here, {folder / 'model.safetensors'}"
    assert (folder / "model.safetensors").read_bytes() == b"tensors"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ((404, "RevisionNotFound"), ["me/other", "revision 'v9'", "Correct weights.revision"]),
        ((401, "RepoNotFound"), ["me/other", "private", "hf auth login"]),
        ((403, "GatedRepo"), ["me/other", "restricted", "terms", "hf auth login"]),
        ((500, ""), ["me/other", "cannot be downloaded", "500", "hf download me/other --revision v9"]),
    ],
)
def test_what_the_hub_refuses(error, words, serve, refused, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client's waits between its tries
    with serve(error), refused(*words):
        fetch(at("me/other", revision="v9"), ["config.json"])


def test_a_full_disk_is_no_missing_network(serve, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bob.backbones.hub.snapshot_download", full)
    with serve(), pytest.raises(OSError, match="No space left"):
        fetch(at("me/net"), ["config.json"])


def test_a_bug_keeps_its_traceback(serve, monkeypatch):
    monkeypatch.setattr("bob.backbones.hub.snapshot_download", lambda *_, **__: 1 / 0)
    with serve(), pytest.raises(ZeroDivisionError):
        fetch(at("me/net"), ["config.json"])


def test_a_folder_stands_for_itself(tmp_path, refused):
    assert fetch(at(str(tmp_path)), ["config.json"]) == tmp_path == local_folder(at(str(tmp_path)))
    assert commit_of(tmp_path) is None
    assert status(at(str(tmp_path)), ["x"]) == f"here, {tmp_path}"
    with refused(tmp_path, "'v1'"):
        fetch(at(str(tmp_path), revision="v1"), ["config.json"])
    with refused(tmp_path, "no x.json", "save_pretrained"):
        raise lacks(at(str(tmp_path)), tmp_path, "x.json")
