"""`trainscope study report` of a study that tried which filters stay."""

from __future__ import annotations

from click.testing import CliRunner

from trainscope.cli.main import main
from trainscope.studies import Study
from trainscope.studies.rows import columns_of

TEXT = """
data = "digits"
seeds = [0, 1]
recipes = "F2,1e-2"
notes = ["A note of the study."]

[[base]]
architecture = "digits_lenet"
recipe = "F2,1e-1"

[oracle]
keep = { conv1 = 9 }
"""


def test_it_says_where_the_choice_ends_and_how_the_loss_goes_with_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tried.toml"
    path.write_text(TEXT, encoding="utf-8")
    study = Study.read(path)
    plan, store = study.plan(), study.open_store()
    store.plan(study.name, plan)
    assert len(plan) == 2 * 10
    while (claimed := store.claim()) is not None:  # rows as runs leave them, without training any
        gone = int(sum(range(10)) - sum(claimed.spec.action.kept["conv1"]))
        row = {"digest": claimed.spec.digest, **columns_of(claimed.spec), "start": f"{gone}"}
        row |= {"pruned_loss": 1.0 + gone, "pruned": 60.0, "ta": 80.0 - gone % 3, "early": 70.0}
        row |= {"dense": 99.0, "final": 90.0 - gone + 0.1 * claimed.spec.seed, "best": 99.0}
        row |= {"status": "finished", "metric": "accuracy", "better": "higher"}
        store.finish(claimed, row)
    store.close()
    result = CliRunner().invoke(main, ["study", "report", "tried.toml"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "pruned train loss, 1, is that of conv1:1,2,3,4,5,6,7,8,9" in said
    assert "at a mean test accuracy of 90.05; 0 of 9 other candidates end better (0 %)" in said
    assert "of 10 candidates, 20 retrainings" in said
    assert "pruned_loss -1.00" in said
    assert "A note of the study." in said
