"""Which backbones are tried if none are named: those that are here, then cheap ones that can be downloaded."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from bob.backbones.sources import weights_status
from bob.cards import BackboneCard
from bob.errors import UserError

MOST = 8  # backbones that are tried unasked, if not more are here
_PATIENCE = 5.0  # seconds for a host to answer
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Candidates:
    """What to try.

    Attributes:
        cards: Those, in the order in which they are met.
        others: Name -> why it is left out, of those that might have been.
    """

    cards: tuple[BackboneCard, ...]
    others: Mapping[str, str]


def default_candidates(cards: Iterable[BackboneCard]) -> Candidates:
    """Every backbone whose weights are here, and if these are few the cheapest that can be downloaded.

    Baselines are not among them: nobody would pick one. Of those to download the cheapest of each method comes first,
    because eight sizes of one network would teach less than eight ways to pretrain.

    Raises:
        UserError: If there is none.
    """
    status = {card.name: (card, weights_status(card)) for card in cards if card.paradigm != "baseline"}
    here = [card for card, words in status.values() if words.startswith(("here", "none needed"))]
    away = {card.name: host_of(words) for card, words in status.values() if card not in here}
    hosts = reachable({host for host in away.values() if host})
    can = [status[name][0] for name, host in away.items() if host in hosts]
    chosen = cheap_first(here) + one_of_each_method(can)[: max(0, MOST - len(here))]
    if not chosen:
        raise UserError(
            f"None of the {len(status)} backbones of the registry has its weights here, and no host of them answers.",
            "Name some whose weights you have (-b timm:NAME@FILE), or run `bob list backbones --here`.",
        )
    reasons = {
        name: "no weights here" if host is None else f"no weights here, and {host} does not answer"
        for name, host in away.items()
        if host not in hosts
    }
    names = {card.name for card in chosen}
    reasons |= {
        card.name: "no weights here; name it with -b to download them" for card in can if card.name not in names
    }
    return Candidates(tuple(chosen), reasons)


def cheap_first(cards: Iterable[BackboneCard]) -> list[BackboneCard]:
    """By number of parameters, those of unknown size last; as given among equals."""
    return sorted(cards, key=lambda card: (card.parameters is None, card.parameters or 0))


def one_of_each_method(cards: Iterable[BackboneCard]) -> list[BackboneCard]:
    """The cheapest of every method, cheapest first, then the second of every method, and so on."""
    turn: dict[str, int] = {}
    order = []
    for card in cheap_first(cards):
        order.append((turn.get(card.method, 0), card))
        turn[card.method] = turn.get(card.method, 0) + 1
    return [card for _, card in sorted(order, key=lambda pair: pair[0])]


def host_of(status: str) -> str | None:
    """The https host that weights would be downloaded from, by what `weights_status` says; None if there is none."""
    _, found, rest = status.partition("downloaded from ")
    if not found:
        return None
    source = rest.split()[0]
    if "://" in source:
        return f"https://{urlsplit(source).netloc}"
    return os.environ.get("HF_ENDPOINT", _HUB)


def reachable(hosts: Iterable[str]) -> set[str]:
    """The hosts that answer anything at all, asked at the same time; none where downloads are switched off."""
    asked: Sequence[str] = sorted(hosts)
    if not asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return set()
    with ThreadPoolExecutor(len(asked)) as pool:
        return {host for host, answers in zip(asked, pool.map(_answers, asked), strict=True) if answers}


def _answers(host: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # it has answered
    except (OSError, ValueError):
        return False
    return True
