import pytest
import torch

from trainscope.sparsify.layout import Groups, Layout, Segment


def test_indices_of_a_concatenation_and_of_a_flattening():
    groups = Groups()
    one, two = groups.new(3), groups.new(2)
    layout = Layout(1, (Segment(one), Segment(two), Segment(one)))
    gone = {one: torch.tensor([0, 2]), two: torch.tensor([1])}
    assert groups.width(layout) == 8
    assert groups.indices(layout, gone).tolist() == [0, 2, 4, 5, 7]
    flat = layout.repeated(2)
    assert groups.width(flat) == 16
    assert groups.indices(flat, gone).tolist() == [0, 1, 4, 5, 8, 9, 10, 11, 14, 15]
    assert groups.indices(layout, {}).tolist() == []


def test_joined_groups_have_the_properties_of_both():
    groups = Groups()
    numbers = [
        groups.new(4, layers=["a"], chunks=2),
        groups.new(4, layers=["b"], residual=True, linear=True),
        groups.new(4, layers=["c"], blocked="why", output=True, chunks=3),
    ]
    for left, right in ((0, 1), (2, 1)):
        groups.join(*(Layout(1, (Segment(numbers[i]),)) for i in (left, right)), "add")
    joined = groups[numbers[2]]
    assert joined is groups[numbers[0]]
    assert groups.roots() == [0]
    assert joined.layers == ["a", "b", "c"]
    assert (joined.residual, joined.output, joined.linear) == (True, True, False)
    assert (joined.chunks, joined.blocked) == (6, "why")


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1)])
def test_layouts_that_do_not_match_are_blocked(sizes):
    groups = Groups()
    whole = Layout(1, (Segment(groups.new(4)),))
    parts = Layout(1, tuple(Segment(groups.new(size)) for size in sizes))
    groups.join(whole, parts, "add")
    assert all("laid out differently" in str(group.blocked) for group in groups.of(whole))
    assert all("laid out differently" in str(group.blocked) for group in groups.of(parts))
