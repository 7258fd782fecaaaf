import pytest
import torch

from bob.engines.recipe import Recipe
from bob.engines.schedule import make_schedule, warmup_updates
from bob.engines.training_data import Plan

PLAN = Plan(part=4, parts=1, world=1, updates=10, epochs=10)
LR = 0.1


def rates(**fields):
    recipe = Recipe("r", lr=LR, epochs=10, warmup_lr=0.0, min_lr=0.0, **{"warmup_epochs": 0, **fields})
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)]}], lr=LR)
    schedule = make_schedule(optimizer, recipe, PLAN, LR)
    seen = []
    for update in range(PLAN.steps):
        schedule.step_update(update)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_multistep_is_torchs():
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    steps = torch.optim.lr_scheduler.MultiStepLR(reference, [75, 92], gamma=0.1)
    wanted = []
    for _ in range(PLAN.steps):
        wanted.append(reference.param_groups[0]["lr"])
        reference.step()
        steps.step()
    assert rates(schedule="multistep", milestones=(0.75, 0.92)) == pytest.approx(wanted)


def test_poly_is_a_straight_line():
    assert rates(schedule="poly") == pytest.approx([LR * (1 - update / 100) for update in range(100)])


@pytest.mark.parametrize("schedule", ["cosine", "poly", "multistep"])
def test_warm_up_by_updates(schedule):
    seen = rates(schedule=schedule, milestones=(0.75,), warmup_steps=20)
    assert seen[:20] == pytest.approx([LR * update / 20 for update in range(20)])
    assert max(seen) <= LR and seen[-1] < 0.11 * LR


def test_warm_up_takes_no_more_than_half():
    assert warmup_updates(Recipe("r", epochs=10, warmup_epochs=0, warmup_steps=1000), PLAN) == 50
    assert warmup_updates(Recipe("r", epochs=10, warmup_epochs=2), PLAN) == 20
