import pytest
import torch

from trainscope.errors import ActionError
from trainscope.sparsify.criteria import CRITERIA, Context, Subject, find

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 6.0], [1.0, 1.0]])


def context(seed=0):
    return Context(torch.Generator().manual_seed(seed))


def test_the_registry_names_them():
    assert list(CRITERIA) == ["l1", "l2", "random", "bn-scale"]
    with pytest.raises(ActionError, match="no criterion is named 'l9'"):
        find("l9")


def test_l1_is_the_mean_and_l2_the_root_mean_square():
    subject = Subject("a", WEIGHT)
    assert find("l1").filters(subject, context()).tolist() == [3.5, 3.0, 1.0]
    expected = torch.tensor([12.5, 18.0, 1.0]).double().sqrt()
    assert torch.equal(find("l2").filters(subject, context()), expected)
    for name in ("l1", "l2"):
        assert torch.equal(find(name).weights(subject, context()), WEIGHT.abs())


def test_random_depends_on_the_seed_and_on_nothing_else():
    subject, state = Subject("a", WEIGHT), torch.get_rng_state()
    one, same, other = (find("random").filters(subject, context(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert find("random").weights(subject, context()).shape == WEIGHT.shape


def test_bn_scale_is_the_mean_of_the_scales_magnitudes():
    scales = (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-3.0, 0.0, 1.0]))
    got = find("bn-scale").filters(Subject("a", WEIGHT, scales), context())
    assert got.tolist() == [2.0, 1.0, 2.0]


def test_bn_scale_needs_a_batch_norm_and_whole_filters():
    with pytest.raises(ActionError, match="no batch norm with a scale directly follows a"):
        find("bn-scale").filters(Subject("a", WEIGHT), context())
    with pytest.raises(ActionError, match="whole filters"):
        find("bn-scale").weights(Subject("a", WEIGHT), context())
