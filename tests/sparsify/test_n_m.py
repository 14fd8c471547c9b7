import pytest
import torch
from reference.zeroed import PlainNet
from torch import nn

from trainscope.errors import ActionError
from trainscope.sparsify import Action, masks_of, sparsify
from trainscope.sparsify.n_m import keep_n_of_m


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2)])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_the_best_n_of_every_m_along_the_inputs_are_kept(n, m, kernel):
    scores = torch.rand(6, 8, *kernel, generator=torch.Generator().manual_seed(0))
    kept = keep_n_of_m(scores, n, m)
    flat = scores.movedim(1, -1).reshape(-1, m)
    for group, mask in zip(flat, kept.movedim(1, -1).reshape(-1, m), strict=True):
        assert set(torch.nonzero(mask).flatten().tolist()) == set(group.topk(n).indices.tolist())


def test_of_equal_weights_the_first_are_kept():
    assert keep_n_of_m(torch.ones(1, 4), 2, 4).tolist() == [[True, True, False, False]]


def test_layers_that_do_not_divide_are_left_dense_and_named():
    done = sparsify(PlainNet(), Action("2:4", scope="all"), (3, 8, 8))
    assert {name.removesuffix(".weight") for name in masks_of(done.module)} == {
        *("features.3", "features.6", "fc1", "fc2")
    }
    assert "features.0 (its input width is not a multiple of 4)" in done.notes[0]
    assert all(change.after * 2 == change.before for change in done.record.layers)
    assert done.record.ratio == 0.5
    assert done.record.meaning == (
        "2 of every 4 weights along the inputs of 2 convolutions and 2 linear layers"
    )


def test_a_network_that_has_the_masks_already_is_a_no_op():
    done = sparsify(PlainNet(), Action("2:4"), (3, 8, 8))
    with pytest.raises(ActionError, match="2:4 already"):
        sparsify(done.module, Action("2:4"), (3, 8, 8))
    first, further = (
        masks_of(network)
        for network in (done.module, sparsify(done.module, Action("1:4"), (3, 8, 8)).module)
    )
    assert first.keys() == further.keys() != set()
    for name, mask in further.items():
        assert not (mask & ~first[name]).any()


def test_no_layer_that_divides_is_an_error():
    with pytest.raises(ActionError, match="nothing can be pruned"):
        sparsify(
            nn.Sequential(nn.Flatten(), nn.Linear(6, 5)), Action("2:4", scope="all"), (1, 2, 3)
        )


def test_no_more_than_three_layers_are_given_as_the_reason():
    layers = [nn.Linear(6, 6) for _ in range(4)]
    with pytest.raises(ActionError, match="no weight is in scope all") as error:
        sparsify(nn.Sequential(nn.Flatten(), *layers), Action("2:4", scope="all"), (6,))
    assert str(error.value).count("its input width is not a multiple of 4") == 3
