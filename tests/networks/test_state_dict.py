"""State dicts made plain: names, masks, sizes."""

from __future__ import annotations

import pytest
import torch

from trainscope.networks.state_dict import is_state_dict, weights_of
from trainscope.networks.tensor_names import plain_names


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (["module.a", "module.b.c"], ["a", "b.c"]),
        (["features.module.0.weight", "fc.weight"], ["features.0.weight", "fc.weight"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ["a", "b"]),
        (["layer1._orig_mod.0.weight"], ["layer1.0.weight"]),
        (["model.net.a", "model.net.b"], ["a", "b"]),
        (["model.a", "other.b"], ["model.a", "other.b"]),
        (["module.a", "a"], ["module.a", "a"]),  # would fall together
        (["module"], ["module"]),  # would be empty
        (["denselayer1.norm.1.weight", "x.denselayer12.conv.2.weight"],
         ["denselayer1.norm1.weight", "x.denselayer12.conv2.weight"]),
        (["norm.1.weight"], ["norm.1.weight"]),
        ([], []),
    ],
)  # fmt: skip
def test_names_without_wrappers(given, plain):
    assert plain_names(given) == dict(zip(given, plain, strict=True))


def test_prefixes_may_be_kept():
    assert plain_names(["module.model.a"], prefixes=False) == {"module.model.a": "model.a"}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"a": torch.zeros(1)}, True),
        ({"a": torch.zeros(1), "b._extra_state": b"x"}, True),
        ({"a._extra_state": b"x"}, False),
        ({"a": torch.zeros(1), "b": 3}, False),
        ({1: torch.zeros(1)}, False),
        ({}, False),
        ([torch.zeros(1)], False),
    ],
    ids=str,
)
def test_what_is_a_state_dict(obj, expected):
    assert is_state_dict(obj) is expected


def test_masks_of_both_kinds_are_taken_out_and_applied():
    found = weights_of(
        {
            "a.weight": torch.tensor([1.0, -2.0]),
            "a.weight_mask": torch.tensor([True, False]),
            "b.weight_orig": torch.tensor([3.0, 4.0]),
            "b.weight_mask": torch.tensor([0.0, 1.0]),
            "b.bias": torch.tensor([5.0]),
            "attn_mask": torch.ones(2, 2),  # a buffer that happens to be called so
            "n_averaged": torch.tensor(3),
        }
    )
    assert {n: t.tolist() for n, t in found.masks.items()} == {
        "a.weight": [True, False],
        "b.weight": [False, True],
    }
    assert {n: t.tolist() for n, t in found.tensors.items()} == {
        "a.weight": [1.0, 0.0],
        "b.weight": [0.0, 4.0],
        "b.bias": [5.0],
        "attn_mask": [[1.0, 1.0], [1.0, 1.0]],
    }
    assert found.notes == (
        "These weights are an average of 3 states of training (n_averaged).",
        "It came pruned: masks hold 2 weights at zero, and they stay there.",
    )


def test_renaming_takes_the_masks_along():
    found = weights_of(
        {"module.weight": torch.ones(2), "module.weight_mask": torch.tensor([True, False])}
    ).plain()
    assert found.masks.keys() == found.tensors.keys() == {"weight"}


def test_tensors_are_copies_and_integers_keep_their_type():
    given = {"a": torch.ones(2), "n": torch.tensor(3), "t": torch.arange(6.0).view(2, 3).t()}
    found = weights_of(given).tensors
    given["a"].zero_()
    assert found["a"].tolist() == [1.0, 1.0]
    assert found["n"].dtype == torch.int64
    assert torch.equal(found["t"], torch.arange(6.0).view(2, 3).t())


def test_tied_weights_are_not_taken_for_a_bomb():
    tied = torch.ones(100, 100)
    assert weights_of({"a": tied, "b": tied, "c": tied.t()}).tensors.keys() == {"a", "b", "c"}
