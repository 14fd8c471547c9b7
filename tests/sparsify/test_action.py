import numpy as np
import pytest

from trainscope.errors import ActionError
from trainscope.sparsify import Action


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan"), 90])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ActionError, match="between 0 and 1"):
        Action(ratio=ratio)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "blocks", "ratio": 0.5}, "no structure is named 'blocks'"),
        ({"structure": "4:2"}, "N below M"),
        ({"structure": "0:4"}, "N below M"),
        ({"scope": "outer", "ratio": 0.5}, "no scope is named 'outer'"),
        ({"criterion": "l7", "ratio": 0.5}, "choose from l1, l2, random, bn-scale"),
        ({}, "no ratio is given"),
        ({"ratios": {"a": 0.0}}, "by pattern are all 0"),
        ({"ratios": {"a": 1.0}}, "the ratio of 'a' is 1"),
        ({"structure": "2:4", "ratio": 0.9}, "contradicts the ratio 0.9"),
        ({"structure": "2:4", "ratios": {"a": 0.7}}, "contradicts the ratio 0.7"),
        ({"structure": "2:4", "global_ranking": True}, "nothing to rank globally"),
        ({"global_ranking": True, "ratios": {"a": 0.5}}, "needs one ratio"),
        ({"global_ranking": True, "ratio": 0.5, "ratios": {"a": 0.5}}, "only 0"),
    ],
)
def test_what_no_network_could_be_given_is_refused(options, message):
    with pytest.raises(ActionError, match=message):
        Action(**options)


def test_n_m_is_read():
    assert Action("2:4").n_m == (2, 4)
    assert Action("1:3", ratio=0.6667).n_m == (1, 3)
    assert Action("2:4", ratio=0.5, ratios={"fc": 0.0}).ratios == {"fc": 0.0}
    assert Action(ratio=0.5).n_m is None


@pytest.mark.parametrize(
    "fields", [{"ratio": "0.5"}, {"ratio": True}, {"heads": "all"}, {"ratios": {"a": "0.5"}}]
)
def test_a_share_that_is_no_number_is_said(fields):
    with pytest.raises(ActionError, match=r"and not a number: give one like 0\.9"):
        Action(**fields)


def test_a_share_may_be_numpys():
    assert Action(ratio=np.float32(0.5)).ratio == 0.5
