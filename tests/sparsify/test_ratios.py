import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainscope.errors import ActionError
from trainscope.sparsify.ratios import assign, parse, to_prune


@pytest.mark.parametrize(
    ("count", "ratio", "expected"),
    [
        (10, 0.9, 9),  # int(10 * (1 - 0.9)) would keep none
        (64, 0.1, 7),
        (64, 0.95, 61),
        (100, 0.29, 29),  # 100 * 0.29 is 28.999999999999996
        (10, 0.7, 7),  # ceil(10 * 0.7) is 7, of 0.7000000000000001 it would be 8
        (3, 0.99, 2),  # one is kept
        (1, 0.9, 0),
        (64, 0, 0),
    ],
)
def test_to_prune(count, ratio, expected):
    assert to_prune(count, ratio) == expected


@given(st.integers(1, 5000), st.integers(1, 99))
def test_to_prune_is_exact_in_percent(count, share):
    expected = min(-(-count * share // 100), count - 1)
    assert to_prune(count, share / 100) == expected


def test_parse_keeps_the_order():
    ratios = parse("layer[1-3]*conv[12]=0.6, layer4*=0.21")
    assert list(ratios.items()) == [("layer[1-3]*conv[12]", 0.6), ("layer4*", 0.21)]


@pytest.mark.parametrize("text", ["a", "a=", "=0.5", "a=x", "a=1", "a=-0.1", "a=nan", ""])
def test_parse_refuses(text):
    with pytest.raises(ActionError, match=r"PATTERN=RATIO"):
        parse(text)


def test_parse_refuses_a_pattern_twice():
    with pytest.raises(ActionError, match="twice"):
        parse("a=0.1,a=0.2")


def test_the_last_pattern_that_matches_wins_and_the_ratio_holds_elsewhere():
    layers = [("layer1.conv1",), ("layer2.conv1",), ("stem",)]
    assert assign(layers, 0.9, {"layer*": 0.5, "layer2*": 0.0}, {}) == [0.5, 0.0, 0.9]
    assert assign(layers, None, {"layer2*": 0.2, "layer*": 0.5}, {}) == [0.5, 0.5, 0.0]


def test_a_pattern_matches_a_group_by_any_of_its_layers():
    assert assign([("stem", "layer1.conv2"), ("other",)], 0.1, {"layer1*": 0.5}, {}) == [0.5, 0.1]


def test_a_pattern_that_matches_nothing_names_near_names():
    with pytest.raises(ActionError, match=r"'layre1\.conv1'.*near names are layer1\.conv1"):
        assign([("layer1.conv1",), ("stem",)], 0.5, {"layre1.conv1": 0.5}, {})


def test_a_pattern_outside_the_scope_says_why():
    with pytest.raises(ActionError, match=r"layer1\.conv2: it is residual"):
        assign([("layer1.conv1",)], 0.5, {"*conv2": 0.5}, {"layer1.conv2": "it is residual"})
