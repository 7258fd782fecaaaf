"""Which backbones are tried unasked: those here, then cheap ones of many methods that can be downloaded."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from bob.cards import BackboneCard, Weights
from bob.errors import UserError
from bob.pick import candidates
from bob.pick.candidates import cheap_first, default_candidates, host_of, one_of_each_method, reachable


def card(name: str, parameters: int | None = 1, method: str = "m", paradigm: str = "ssl") -> BackboneCard:
    weights = Weights(source="timm", model=name)
    return BackboneCard.model_validate(
        {"name": name, "weights": weights, "parameters": parameters, "method": method, "paradigm": paradigm}
    )


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> list[BackboneCard]:
    """One backbone that is here, four to download, one that cannot be had, one baseline."""
    status = {
        "here": "here, /cache/here",
        "file": "not here; pip install something",
        "other": "not here; downloaded from https://gone.example/w.pth when first used",
    }
    hub = "not here; downloaded from timm/w when first used"
    monkeypatch.setattr(candidates, "weights_status", lambda c: status.get(c.name, hub))
    monkeypatch.setattr(candidates, "reachable", lambda hosts: {host for host in hosts if "huggingface" in host})
    return [
        card("pixels", 0, paradigm="baseline"),
        card("large", 300, "a"),
        card("small", 20, "a"),
        card("medium", 100, "b"),
        card("unknown", None, "b"),
        card("here", 500),
        card("file"),
        card("other"),
    ]


def test_what_is_here_comes_first(registry: list[BackboneCard]) -> None:
    found = default_candidates(registry)
    assert [c.name for c in found.cards] == ["here", "small", "medium", "large", "unknown"]
    assert found.others == {
        "file": "no weights here",
        "other": "no weights here, and https://gone.example does not answer",
    }


def test_no_more_than_a_few_are_downloaded_unasked(
    registry: list[BackboneCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MOST", 2)
    found = default_candidates(registry)
    assert [c.name for c in found.cards] == ["here", "small"]
    assert found.others["large"] == "no weights here; name it with -b to download them"


def test_none_can_be_had(registry: list[BackboneCard], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "reachable", lambda hosts: set())
    with pytest.raises(UserError, match=r"None of the 6 backbones .* no host of them answers"):
        default_candidates([c for c in registry if c.name != "here"])


def test_orders() -> None:
    cards = [card("x", None), card("b", 2, "p"), card("a", 1, "p"), card("c", 3, "q")]
    assert [c.name for c in cheap_first(cards)] == ["a", "b", "c", "x"]
    assert [c.name for c in one_of_each_method(cards)] == ["a", "c", "x", "b"]


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_of("not here; downloaded from https://dl.example/a/b.pth when first used") == "https://dl.example"
    assert host_of("not here; downloaded from timm/vit when first used") == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert host_of("not here; downloaded from timm/vit when first used") == "https://mirror.example"
    assert host_of("not here; pip install it") is None


@pytest.fixture
def server() -> Iterator[str]:
    """A host that answers, if only that it knows nothing."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_who_answers_is_reachable(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert reachable([server, "http://127.0.0.1:1"]) == {server}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert reachable([server]) == set()
