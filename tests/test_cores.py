"""The cores granted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bob.cores import granted_cores


@pytest.fixture
def machine(monkeypatch):
    """Fake the CPU affinity and the files of cgroups."""

    def fake(affinity: int, files: dict[str, str]) -> None:
        real = Path.read_text

        def read_text(self, *args, **kwargs):
            if not str(self).startswith("/sys/fs/cgroup"):
                return real(self, *args, **kwargs)
            if str(self) not in files:
                raise FileNotFoundError(2, "No such file or directory", str(self))
            return files[str(self)]

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)

    return fake


def v1(quota: str, period: str) -> dict[str, str]:
    return {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota, "/sys/fs/cgroup/cpu/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"/sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu.max": ""}, 8),
        (v1("400000\n", "100000\n"), 4),
        (v1("-1\n", "100000\n"), 8),
        (v1("0\n", "0\n"), 8),
        (v1("nonsense\n", "100000\n"), 8),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n"}, 8),
        ({"/sys/fs/cgroup/cpu.max": "200000 100000\n", **v1("400000", "100000")}, 2),
    ],
)
def test_granted_cores(machine, files, expected) -> None:
    machine(8, files)
    assert granted_cores() == expected


def test_affinity_limits_too(machine) -> None:
    machine(2, {"/sys/fs/cgroup/cpu.max": "400000 100000"})
    assert granted_cores() == 2


def test_a_system_without_affinity(machine, monkeypatch) -> None:
    machine(8, {})
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert granted_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert granted_cores() == 1
