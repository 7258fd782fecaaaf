"""What is frozen stays as it is, whatever the module around it does."""

import copy

import pytest
import timm
import torch
from torch import nn

from bob.backbones.freeze import evaluating, freeze, keep_statistics


class Stack(nn.Module):
    """BatchNorm, dropout and drop path, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.5)
        self.noise = nn.Dropout(0.5)

    def forward(self, images):
        return self.noise(self.body(images))


@pytest.fixture
def stack():
    torch.manual_seed(0)
    return freeze(Stack())


def train(body, steps=3):
    """Train a head on it, as a loop does that knows nothing of freezing."""
    net = nn.Sequential(body, nn.BatchNorm1d(96), nn.Linear(96, 2))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    for _ in range(steps):
        net.train()
        net(torch.randn(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    return net


def test_parameters_and_buffers_stay_the_same_bits(stack) -> None:
    before = {name: tensor.clone() for name, tensor in stack.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    features = stack(images)
    net = train(stack)
    assert net[1].training
    assert net[1].num_batches_tracked == 3
    after = stack.state_dict()
    assert before.keys() == after.keys() == Stack().state_dict().keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(stack(images), features)


def test_what_is_not_frozen_changes() -> None:
    body = Stack()
    before = body.body.bn1.running_mean.clone()
    train(body.requires_grad_(False))
    assert not torch.equal(body.body.bn1.running_mean, before)


def test_no_part_can_be_put_in_train_mode(stack) -> None:
    stack.train()
    for part in stack.modules():
        assert part.train(True) is part
    assert not any(part.training for part in stack.modules())
    assert stack.eval() is stack
    assert not any(parameter.requires_grad for parameter in stack.parameters())


def test_a_copy_is_frozen_and_a_module_of_its_own(stack) -> None:
    twin = copy.deepcopy(nn.Sequential(stack))[0]
    stack.body.training = True
    assert twin.train() is twin
    assert twin.body.train() is twin.body
    assert stack.body.training
    stack.body.training = False
    before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    train(twin)
    assert all(torch.equal(tensor, twin.state_dict()[name]) for name, tensor in before.items())


def test_it_takes_a_state_dict_and_can_be_saved(stack, tmp_path) -> None:
    other = Stack()
    stack.load_state_dict(other.state_dict())
    assert torch.equal(stack.body.conv1[0].weight, other.body.conv1[0].weight)
    torch.save(stack, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert loaded.train().training is False


def test_statistics_stay_while_the_rest_trains() -> None:
    torch.manual_seed(0)
    body = keep_statistics(Stack())
    twin = copy.deepcopy(body)
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    train(body)
    after = body.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == ("running_" in name or "num_batches" in name), name
    assert body.noise.training
    assert not body.body.bn1.training
    assert twin.train().noise.training
    assert not twin.body.bn1.training
    assert torch.equal(twin.body.bn1.weight, before["body.bn1.weight"])


def test_evaluating_gives_each_part_its_mode_back() -> None:
    net = nn.Sequential(nn.Dropout(), freeze(nn.BatchNorm1d(2)), nn.ReLU()).train()
    net[2].eval()
    with evaluating(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == [True, True, False, False]
