"""`trainscope schedule`: what changes nothing is refused, and sums are those of the decimals."""

from __future__ import annotations

import json

import pytest
from commands import invoke

STAGES = ("0:1e-1,30:1e-2", "--epochs", 60)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("F90,1e-1", "--speedup", 2), "'F90,1e-1' divides nothing by a speedup"),
        (("P60F60,1e-3", "--speedup", -2), "divides nothing by a speedup"),
        ((*STAGES, "--speedup", 2), "divides nothing by a speedup"),
        ((*STAGES, "--shape", "cosine"), "so --shape changes nothing"),
        ((*STAGES, "--min-lr", 1e-3), "so --min-lr changes nothing"),
        ((*STAGES, "--pretrain-epochs", 9), "so --pretrain-epochs changes nothing"),
        (("F90,1e-1", "--min-lr", 1e-3), "with the shape halving leave it out"),
        (("F9,1e-1", "--shape", "constant", "--min-lr", 1), "with the shape constant leave it out"),
        (
            ("F9,1e-1", "--pretrain-schedule", "0:1", "--pretrain-epochs", 9),
            "recipe F9,1e-1 has no pretraining, so --pretrain-schedule changes nothing",
        ),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(given, said):
    assert said in invoke("schedule", *given, code=2).output


def test_options_that_are_used_are_taken():
    rewound = ("--pretrain-schedule", "0:1e-1,6:1e-2", "--pretrain-epochs", 9, "--shape", "rewind")
    assert invoke("schedule", "F6,1e-1", *rewound).stdout == "0:1e-1,3:1e-2\n"
    squeezed = invoke("schedule", "P30/F90,1e-3", "--speedup", 7)
    assert "pruning epoch 4 (30 / 7)" in squeezed.stderr


@pytest.mark.parametrize(
    ("recipe", "sum_of_lr"), [("F90,1e-1", 3.31587), ("F30,1e-1", 1.58421), ("F3,3e-1", 0.63)]
)
def test_the_lr_time_is_the_sum_of_the_decimals(recipe, sum_of_lr):
    known = json.loads(invoke("schedule", recipe, "--json").stdout)
    assert known["lr_time"] == sum_of_lr


@pytest.mark.parametrize(("given", "rest"), [(("F90,1e-1", "--shape", "cosine"), 90), (STAGES, 60)])
def test_the_epochs_of_a_warm_up_are_said_to_be_added(given, rest):
    """A plan of 90 epochs with 100 of warm-up is one of 190, which nothing said."""
    found = invoke("schedule", *given, "--warmup", 100)
    said = f"{rest + 100} epochs: 100 of warm-up, and then the {rest} of the schedule"
    assert said in found.stderr
    assert "warm-up" not in invoke("schedule", *given).stderr
