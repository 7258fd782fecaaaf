"""What the page says in sentences: what is compared, who leads, how it was counted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from bob.report.findings import Findings
    from bob.standings.policy import Policy

_NAMED = 6  # backbones that a sentence has room for
_BY = {
    "mean_z": "mean z: how many standard deviations a score lies above the mean of its setting, averaged",
    "mean_rank": "mean rank: the place in each setting, averaged",
    "borda": "Borda count: how many backbones are behind in each setting, averaged",
    "win_rate": "win rate: the share of other backbones beaten in each setting, ties half, averaged",
}
_OVER = {
    "categories": "Settings of one category are averaged first; then every category counts the same.",
    "tasks": "Settings of one task are averaged first; then every task counts the same.",
    "settings": "Every setting (a task and a protocol) counts the same.",
}
_DDOF = {
    1: "z uses the sample standard deviation (ddof 1).",
    0: "z uses the population standard deviation (ddof 0).",
}
_MISSING = {
    "show": "A backbone that lacks a setting keeps its scores and gets no rank: nothing is filled in.",
    "common": "Only settings that all backbones have are counted.",
    "drop": "Only backbones that have all settings are ranked.",
}
_METHODS = (
    (
        "Intervals of a score",
        "A score is the primary metric on the test split, the mean over seeds if there are several. Its 95% interval "
        "comes from bootstrap resamples of the test samples, and with several seeds also from the spread over seeds. "
        "Every backbone sees the same resamples, so differences are paired.",
    ),
    (
        "Rank intervals",
        "All differences to one backbone get simultaneous 95% intervals from the joint resamples. Whoever is surely "
        "better counts above it, whoever is surely worse below; its rank lies anywhere between. "
        "Source: Mogstad, Romano, Shaikh and Wilhelm, Inference for Ranks, Review of Economic Studies, 2024.",
    ),
    (
        "Tied groups",
        "Group 1 is the leader and all that are not surely worse than it. The best of the rest leads group 2, and so "
        "on. Two members of neighbouring groups may still be indistinguishable from each other.",
    ),
    (
        "Published scores",
        "A score from a published table names its source. It has an interval only if the table says how sure it is, "
        "and its uncertainty is taken as independent of all others. If any score that counts has none, ranks get no "
        "interval.",
    ),
)


def summary(findings: Findings) -> str:
    """The summary as HTML: who leads, how much is compared, by which rules."""
    counts = "".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in _counts(findings))
    rules = "".join(f"<li>{escape(line)}</li>" for line in policy_lines(findings))
    lead = escape(leading(findings.standings, findings.policy.by))
    return (
        f'<p class="lead">{lead}</p>\n<dl class="counts">{counts}</dl>\n'
        f'<h3>How backbones are ranked</h3>\n<ul class="prose">{rules}</ul>'
    )


def leading(standings: pd.DataFrame, by: str) -> str:
    """One sentence on the leader and those that are not surely worse."""
    ranked = standings[standings["rank"].notna()]
    if ranked.empty:
        return "No backbone has a score in every setting, so none is ranked over all of them; smaller views have ranks."
    first = ranked.iloc[0]
    equals = ranked.loc[ranked["rank"] == first["rank"], "backbone"]
    leader = listed(list(equals))
    what = f"{'leads' if len(equals) == 1 else 'lead'} {len(ranked):,} ranked backbones by {by.replace('_', ' ')}"
    if len(ranked) == 1:
        return f"{leader} is the only backbone that is ranked."
    if pd.isna(first["group"]):
        return f"{leader} {what}. How sure that is remains unknown, since not every score says how sure it is."
    tied = [name for name in ranked.loc[ranked["group"] == first["group"], "backbone"] if name not in set(equals)]
    if tied:
        return f"{leader} {what}; not surely worse {'is' if len(tied) == 1 else 'are'} {listed(tied)}."
    return f"{leader} {what}, surely better than every other one (95%)." if len(equals) == 1 else f"{leader} {what}."


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many, the first few and how many more."""
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1:,} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def policy_lines(findings: Findings) -> list[str]:
    """The rules of the ranking, a sentence each, and what they leave out here."""
    policy = findings.policy
    lines = [f"Ranked by {_BY[policy.by]}.", _OVER[policy.over], _DDOF[policy.ddof], _MISSING[policy.missing]]
    table = findings.cells.table
    settings = sorted(set(table["setting"]) - set(findings.grid.settings.index))
    backbones = sorted(set(table["backbone"]) - set(findings.grid.backbones))
    incomplete = int(findings.standings["rank"].isna().sum())
    if settings:
        lines.append(
            f"Not counted, for not all backbones have {'it' if len(settings) == 1 else 'them'}: {listed(settings)}."
        )
    if backbones:
        lines.append(f"Not ranked, for lack of a setting: {listed(backbones)}.")
    if incomplete:
        lines.append(f"{incomplete:,} of {len(findings.standings):,} backbones lack a setting.")
    return lines


def methods(policy: Policy) -> str:
    """What intervals, ranks and groups mean, as HTML."""
    notes = [*_METHODS, ("Aggregates", f"{_OVER[policy.over]} {_DDOF[policy.ddof]} {_MISSING[policy.missing]}")]
    return "".join(f'<h3>{escape(title)}</h3>\n<p class="prose">{escape(text)}</p>\n' for title, text in notes)


def footer(findings: Findings, version: str) -> str:
    """Which bob made the page, from how many records, of when."""
    count = len(findings.runs)
    newest = findings.runs["created"].max()
    when = f"the newest of {newest[:10]}" if count > 1 else f"of {newest[:10]}"
    return f"Made by bob {version} from {count:,} record{'' if count == 1 else 's'}, {when}."


def _counts(findings: Findings) -> list[tuple[str, int]]:
    table = findings.cells.table
    counts = {"backbone": "backbone", "setting": "setting", "task": "task", "category": "category"}
    plurals = {"category": "categories"}
    found = []
    for column, word in counts.items():
        count = table[column].nunique()
        found.append((word if count == 1 else plurals.get(word, f"{word}s"), count))
    published = int((table["source"] != "").sum())
    found.append(("record" if len(findings.runs) == 1 else "records", len(findings.runs)))
    return [*found, ("published scores", published)] if published else found
