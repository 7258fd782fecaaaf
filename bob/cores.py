"""How many cores this process may use. Imports no torch, so that what starts quickly can ask."""

from __future__ import annotations

import os
from pathlib import Path


def granted_cores() -> int:
    """Cores that this process may use: its CPU affinity, cut down to the cgroup's quota (containers, batch systems)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def _cgroup_quota() -> float | None:
    """CPU quota in cores of cgroup v2 or v1; None if there is none."""
    folder = Path("/sys/fs/cgroup")
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = (int(n) for name in names for n in (folder / name).read_text().split())
        except (OSError, ValueError):  # not this version of cgroups, or the word "max"
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None
