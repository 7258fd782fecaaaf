"""The copy that is trained, its head, and the branches that it drops."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from timm.layers import DropPath
from torch import nn

from bob.engines.network import Network, copy_backbone, make_head, set_drop_path
from bob.errors import UserError


def rates(model: nn.Module) -> list[float]:
    return [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "resnet18", "swin_tiny_patch4_window7_224"])
def test_drop_path_is_timms_own(name) -> None:
    model, reference = timm.create_model(name), timm.create_model(name, drop_path_rate=0.2)
    assert set_drop_path(model, 0.2) > 0
    assert rates(model) == pytest.approx(rates(reference), abs=1e-6)
    x = torch.rand(2, 3, 224, 224)
    for network in (model, reference):
        network.load_state_dict(reference.state_dict())
        network.train()
    torch.manual_seed(0)
    with torch.no_grad():
        expected = reference(x)
    reference.load_state_dict(model.state_dict(), strict=True)
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


def test_drop_path_of_torchvision_and_none_at_all() -> None:
    model = torchvision.models.convnext_tiny()
    assert set_drop_path(model, 0.0) == 18
    assert not [m for m in model.modules() if type(m).__name__ == "StochasticDepth"]
    assert set_drop_path(model, 0.3) == 18 and max(rates(model)) == pytest.approx(0.3)
    assert set_drop_path(nn.Sequential(nn.Linear(2, 2)), 0.3) == 0


def test_the_head_begins_small() -> None:
    torch.manual_seed(0)
    head = make_head("linear", 500, 20)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05) and not head.bias.any()
    norm, linear = make_head("batchnorm_linear", 500, 20)
    assert norm.weight is None and linear.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_a_frozen_network_gives_no_gradient_to_the_backbone(open_tiny) -> None:
    network = Network(copy_backbone(open_tiny(), torch.device("cpu")), make_head("linear", 8, 2), frozen=True)
    network.head = make_head("linear", network.backbone.width(), 2)
    network.train()
    assert not any(module.training for module in network.backbone.modules())
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert network.head.weight.grad is not None
    assert set(network.learnt()) == {"head"}


def test_a_backbone_that_cannot_be_copied_is_the_users(open_tiny) -> None:
    backbone = open_tiny()
    backbone.model.leftover = next(backbone.model.parameters()) * 2  # part of a graph, as weight_norm leaves it
    with pytest.raises(UserError, match="cannot be copied for training"):
        copy_backbone(backbone, torch.device("cpu"))
