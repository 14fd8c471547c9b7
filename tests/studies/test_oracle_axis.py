"""An oracle's candidates are the actions of a study, planned before anything runs."""

from __future__ import annotations

import pytest
from small_studies import pretraining
from torch import nn

from trainscope.errors import StudyError
from trainscope.networks import Network
from trainscope.sparsify import Action
from trainscope.studies import Study, costs
from trainscope.studies.oracle_axis import OracleActions
from trainscope.studies.oracle_results import choice_line, correlated, tried_in, tried_table
from trainscope.studies.telling import short

LENET = {"architecture": "digits_lenet", "recipe": "F2,1e-1"}


def study(**options) -> Study:
    return Study("x", **{"base": LENET, "recipes": "F2,1e-1", "data": "digits", **options})


def test_all_combinations_of_a_layer_are_its_actions():
    plan = study(oracle={"keep": {"conv1": 2}}, seeds=[0, 1]).plan()
    assert len(plan) == 45 * 2  # 10 over 2, and two seeds
    assert plan[0].spec.action == Action(kept={"conv1": (0, 1)})
    assert plan[0].names == {"action": "conv1:0,1"}
    assert plan[-1].spec.action == Action(kept={"conv1": (8, 9)})


def test_a_ratio_is_of_every_inner_layer_and_candidates_are_drawn():
    base = {"architecture": "digits_resnet", "recipe": "F2,1e-1"}
    plan = study(base=base, oracle=OracleActions(ratio=0.9, candidates=5)).plan()
    found = [each.spec.action.kept for each in plan]
    assert len(found) == 5
    left = {layer: len(kept) for layer, kept in found[0].items()}
    assert list(left.values()) == [1, 1, 3, 3, 6, 6]  # ceil(0.9 n) go of 16, 16, 32, 32, 64, 64
    assert all({n: len(kept) for n, kept in each.items()} == left for each in found)
    assert [each.names["action"] for each in plan[:2]] == ["candidate 1", "candidate 2"]
    assert "candidate 1, 20 filters of 6 layers stay" in short(plan[0].spec, "candidate 1")
    again = study(base=base, oracle=OracleActions(ratio=0.9, candidates=5)).plan()
    assert [each.digest for each in again] == [each.digest for each in plan]


def test_each_base_has_candidates_of_its_own():
    wide = {"architecture": "lenet5", "recipe": "F1,1e-1"}
    tried = study(base=[LENET, wide], oracle={"keep": {"conv1": 1}}).plan()
    assert len(tried) == 10 + 6


def test_what_candidates_cost_is_worked_out_once(monkeypatch):
    plan = study(oracle={"keep": {"conv1": 2}}).plan()
    cut, done = [], costs.sparsify
    monkeypatch.setattr(costs, "sparsify", lambda *each: cut.append(each[1]) or done(*each))
    monkeypatch.setattr(costs, "rate_of", lambda *_: None)
    found = costs.forecast(plan)
    assert len(set(found.each)) == 1
    assert len([each for each in cut if each.kept]) == 1


@pytest.mark.parametrize(
    ("oracle", "said"),
    [
        ({"keep": {"conv9": 2}}, "no layer is named 'conv9'"),
        ({"keep": {"conv1": 10}}, "conv1 has 10 filters, and 10 are to stay"),
        ({"keep": {"conv1": 5, "conv2": 5, "conv3": 5}}, "too many to try one by one"),
        ({"ratio": 1.5}, "the ratio is 1.5"),
        ({"ratio": 0.5, "candidates": 1}, "1 candidates cannot be compared"),
        ({"ratio": 0.5, "keep": {"conv1": 2}}, "give keep, .* or ratio"),
        ({"ratio": 0.5, "seed": -1}, "the seed -1"),
    ],
)
def test_what_cannot_be_tried(oracle, said):
    with pytest.raises(StudyError, match=said):
        study(oracle=oracle).plan()


def test_an_oracle_needs_recipes():
    with pytest.raises(StudyError, match="retrained by a recipe"):
        study(oracle={"ratio": 0.5, "candidates": 2}, recipes=None).plan()


class Gated(nn.Module):
    """An MLP whose units are products of two layers'."""

    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 10)

    def forward(self, x):
        return self.down(self.gate(x).relu() * self.up(x))


def test_layers_that_go_together_are_named_once():
    network = Network(Gated().eval(), "gated", (6,), 10)
    with pytest.raises(StudyError, match="gate, up go together: name one"):
        OracleActions({"gate": 2, "up": 2}, None, 2).actions(network)
    assert len(OracleActions({"up": 2}).actions(network)) == 6


def rows(losses, ends) -> list[dict]:
    return [
        {"action.kept": f"{place}", "action.name": f"c{place}", "start": f"{place}", "seed": seed}
        | {"pruned_loss": loss, "pruned": 50.0, "ta": 60.0 + end, "final": end, "recipe": "F2,1e-1"}
        | {"metric": "accuracy", "better": "higher", "early": None}
        for seed in (0, 1)
        for place, (loss, end) in enumerate(zip(losses, ends, strict=True))
    ]


def test_a_report_says_where_the_oracle_ends():
    held = rows([3.0, 1.0, 2.0, 4.0], [70.0, 80.0, 90.0, 60.0])
    found = tried_in(held)
    assert [each.rows[0]["action.name"] for each in found] == ["c1", "c2", "c0", "c3"]
    assert "is that of c1" in choice_line(found)
    assert "1 of 3 other candidates end better (33 %)" in choice_line(found)
    assert tried_table(found)[1] == ["c1", "2", "1.00", "50.00", "140.00", "80.00"]
    loss = correlated(held)["pruned_loss"]
    assert loss.coefficients["kendall"].value == pytest.approx(-2 / 3)  # one pair of six is wrong
    assert tried_in([row | {"action.kept": None} for row in held]) == []
    assert correlated(held[:2]) is None


def test_long_tables_are_cut_in_the_middle():
    found = tried_in(rows(range(20), range(20)))
    assert [line[0] for line in tried_table(found)][4:8] == ["c3", "c4", "…", "c15"]


def test_a_pretraining_as_a_run_is_a_base_too():
    with pytest.raises(StudyError, match="no layer is named 'conv1'"):
        study(base=pretraining(), oracle={"keep": {"conv1": 2}}).plan()
    plan = study(base=pretraining(), oracle={"keep": {"0": 7}}).plan()
    assert len(plan) == 8
