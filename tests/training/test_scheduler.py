"""A schedule drives any torch optimizer."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from trainscope.training.schedule import parse_schedule
from trainscope.training.scheduler import ScheduleLR
from trainscope.training.shapes import cosine


def optimizer(kind=torch.optim.SGD, *rates):
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates or (0.5,)]
    return kind(groups)


def follow(made, scheduler, epochs):
    rates = []
    for _ in range(epochs):
        rates.append([group["lr"] for group in made.param_groups])
        made.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_the_first_group_has_exactly_the_schedules_rates(kind):
    schedule, made = cosine(0.1, 12), optimizer(kind)
    rates = follow(made, ScheduleLR(made, schedule), 14)
    assert [rate for (rate,) in rates[:12]] == schedule.rates()
    assert rates[12] == rates[13] == [schedule.rates()[-1]]


def test_other_groups_keep_their_ratio():
    made = optimizer(torch.optim.SGD, 1e-1, 1e-2, 1e-1)
    rates = follow(made, ScheduleLR(made, parse_schedule("0:1e-2,2:1e-3", 4)), 4)
    assert rates[0] == pytest.approx([1e-2, 1e-3, 1e-2])
    assert rates[3] == pytest.approx([1e-3, 1e-4, 1e-3])
    assert rates[0][0] == rates[0][2] == 1e-2


def test_it_goes_on_from_a_file_that_weights_only_loading_reads():
    schedule, made = parse_schedule("0:1e-2,2:1e-3,4:1e-4", 6), optimizer()
    scheduler = ScheduleLR(made, schedule)
    follow(made, scheduler, 3)
    file = io.BytesIO()
    torch.save({"optimizer": made.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = optimizer()
    resumed = ScheduleLR(again, parse_schedule("0:9e-1", 9))
    again.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["scheduler"])
    assert resumed.schedule == schedule
    assert follow(again, resumed, 3) == [[1e-3], [1e-4], [1e-4]]
