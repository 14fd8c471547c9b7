import torch
from hypothesis import given
from hypothesis import strategies as st

from trainscope.sparsify.candidate import Candidate
from trainscope.sparsify.choose import choose, lowest, lowest_of_all
from trainscope.sparsify.criteria import Subject
from trainscope.sparsify.ratios import to_prune

scores_ = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def candidate(name, count, **options):
    return Candidate(Subject(name, torch.zeros(count, 1)), (name,), count, **options)


def reference(scores, count):
    order = sorted(range(len(scores)), key=lambda i: (scores[i], -i))
    return sorted(order[:count])


@given(scores_, st.data())
def test_lowest_are_the_lowest_and_of_equals_the_first_are_kept(scores, data):
    count = data.draw(st.integers(0, len(scores)))
    mask = lowest(torch.tensor(scores, dtype=torch.float64), count)
    assert torch.nonzero(mask).flatten().tolist() == reference(scores, count)


@given(st.lists(scores_, min_size=1, max_size=5), st.integers(1, 99))
def test_a_global_ranking_removes_exactly_what_is_asked_where_it_can(layers, share):
    tensors = [torch.tensor(layer, dtype=torch.float64) for layer in layers]
    masks, missing = lowest_of_all(tensors, share / 100)
    total = sum(map(len, layers))
    gone = sum(int(mask.sum()) for mask in masks)
    assert gone == min(to_prune(total, share / 100), total - len(layers))
    assert gone + missing == to_prune(total, share / 100)
    assert all(not mask.all() for mask in masks)
    # Nothing that went is better than what stays, but for the best of each layer, which is held.
    free = []
    for scores, mask in zip(tensors, masks, strict=True):
        kept = scores[~mask].tolist()
        kept.remove(max(kept))
        free += kept
    worst_gone = [s for scores, mask in zip(tensors, masks, strict=True) for s in scores[mask]]
    if free and worst_gone:
        assert max(worst_gone) <= min(free)


def test_a_layer_with_ratio_0_is_spared():
    scores = [torch.arange(4.0), torch.arange(4.0)]
    chosen = choose([candidate("a", 4), candidate("b", 4)], scores, [0.5, 0.0])
    assert {name: kept.tolist() for name, kept in chosen.removed.items()} == {"a": [0, 1]}


def test_a_layer_with_no_filter_to_spare_is_named_and_no_other_is():
    scores = [torch.zeros(1), torch.arange(4.0)]
    chosen = choose([candidate("a", 1), candidate("b", 4)], scores, [0.5, 0.5])
    assert chosen.notes == ["a has no filter to spare"]


def test_each_group_of_a_grouped_convolution_loses_its_own_share():
    scores = [torch.tensor([0.0, 1, 2, 3, 9, 8, 7, 6])]
    own = choose([candidate("a", 8, chunks=2)], scores, [0.5]).removed["a"]
    assert own.tolist() == [0, 1, 6, 7]
    same = choose([candidate("a", 8, chunks=2, aligned=True)], scores, [0.5]).removed["a"]
    assert same.tolist() == [2, 3, 6, 7]  # the means are all 4.5: the first are kept


def test_grouped_convolutions_stay_out_of_a_global_ranking_and_are_named():
    rows = [candidate("a", 4, chunks=2), candidate("b", 4)]
    chosen = choose(rows, [torch.zeros(4), torch.arange(4.0)], [0.5, 0.5], global_ratio=0.5)
    assert chosen.removed["b"].tolist() == [0, 1]
    assert "a" not in chosen.removed
    assert "left out of the global ranking: a" in chosen.notes[0]


def test_a_global_ranking_that_would_empty_layers_says_what_is_missing():
    rows = [candidate("a", 2), candidate("b", 2)]
    chosen = choose(rows, [torch.zeros(2), torch.ones(2)], [0.9, 0.9], global_ratio=0.9)
    assert {name: len(gone) for name, gone in chosen.removed.items()} == {"a": 1, "b": 1}
    assert "1 filters fewer went" in chosen.notes[0]
