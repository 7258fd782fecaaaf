"""What is said of the machine is true, and the same for the same machine."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.errors import UserError
from bob.machine import count_flops, environment, peak_memory_bytes, resolve_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "gpu", "cuda:99", "cpu:x", "", "CPU"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(UserError, match=f"There is no device '{name}' here. Use --device auto, cpu"):
        resolve_device(name)


def test_devices_that_are() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_environment_is_json_and_steady() -> None:
    found = environment(CPU)
    assert json.loads(json.dumps(found)) == found == environment(CPU)
    assert found["device"] == "cpu" and found["cores"] >= 1
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["packages"]["numpy"] == np.__version__


def test_peak_memory_is_in_bytes_and_never_falls() -> None:
    before = peak_memory_bytes(CPU)
    assert 2**26 < before < 2**40  # torch alone takes more than the one
    assert peak_memory_bytes(CPU) >= before


def test_flops_by_hand() -> None:
    # 8 filters of 3 x 5 x 5 at 28 x 28 places, then 8 sums to 10 numbers; a multiply-add is two operations.
    model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10, bias=False))
    card = BackboneCard(name="c", weights=Weights(source="custom", model="c.py:make"))
    backbone = Backbone(card, model, Preprocess(size=(32, 32)), code={})
    assert count_flops(backbone) == 2 * (8 * 75 * 28 * 28 + 8 * 10)
    assert all(parameter.grad is None for parameter in model.parameters())
