"""A learning rate that is searched for: a run like any other once it is chosen."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_studies import SETTINGS, one_thread, pretraining, retraining

from trainscope.errors import StudyError
from trainscope.records import Measurement, Scalar
from trainscope.records.metric import ACCURACY
from trainscope.sparsify import Action
from trainscope.studies import RunSpec, Store, Study
from trainscope.studies.planned import Planned
from trainscope.studies.queues import SEARCH
from trainscope.studies.results import planned_digests, results, runs_of
from trainscope.studies.search import Search, Slot, with_lr
from trainscope.studies.summary import best_of_searches
from trainscope.studies.working import Listeners, work

SPEC = retraining("F2,1e-1")


@pytest.fixture(autouse=True)
def _one_thread():
    one_thread()


def searched(store, **options) -> Study:
    given = {"lr": (1e-3, 1.0), "trials": 2, **options}
    return Study(
        "x",
        base=pretraining("F1,1e-1"),
        action=Action(ratio=0.5),
        recipes="F2,1e-1",
        settings=SETTINGS,
        search=given,
        store=store,
    )


def planned(store: Store, search: Search, *specs: RunSpec) -> None:
    slots = [(spec, Slot(search, place)) for spec in specs for place in range(search.trials)]
    store.plan("x", [Planned(spec, {}, slot) for spec, slot in slots])


def ended(store: Store, claimed, value: float) -> None:
    row = {"digest": claimed.spec.digest, "status": "finished", "final": value, "better": "higher"}
    store.finish(claimed, claimed.searched.row(row))


def after(epoch: int, value: float) -> SimpleNamespace:
    """Return a state of a training, of which a search looks at this alone."""
    loss = Measurement("gradient", scalars={"loss": Scalar(value)})
    return SimpleNamespace(
        epoch=epoch,
        records=[SimpleNamespace(test_metric=value)],
        measurements=[SimpleNamespace(measurement=loss, epoch=epoch)],
        metric=ACCURACY,
    )


def test_a_search_that_is_stopped_goes_on_with_the_lr_that_it_chose(tmp_path):
    study = searched(tmp_path / "study.db")
    store = study.open_store()
    store.plan("x", study.plan())
    chosen = []

    def stop(claimed, _):
        chosen.append(claimed.spec)
        if len(chosen) == 3:  # the first epoch of the second run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(store, telling=Listeners(epoch=stop))
    rows = study.run()
    first, second = [row["digest"] for row in rows]
    assert [chosen[0].digest, chosen[2].digest] == [first, second]
    assert rows[0]["lr"] == 0.1  # that of the recipe
    assert all(1e-3 <= row["lr"] <= 1.0 for row in rows)
    assert len({row["lr"] for row in rows}) == 2
    for row in rows:
        spec = with_lr(study.plan()[0].spec, row["lr"])
        assert row["digest"] == spec.digest
        assert (tmp_path / "runs" / spec.key / "run.json").is_file()
    assert planned_digests(rows) == {each.digest for each in study.plan()}
    assert len(runs_of(store, ["x"])) == 2
    best = max(rows, key=lambda row: row["final"])
    assert best_of_searches(rows)[1] == [
        "2", "0", best["recipe"], f"{best['lr']:g}", f"{best['final']:g}",
    ]  # fmt: skip
    spec = replace(with_lr(SPEC, best["lr"]), base=pretraining("F1,1e-1"))
    alone = Study("y", runs=[spec], store=tmp_path / "study.db")
    assert alone.run()[0]["digest"] == best["digest"]  # one run, in both studies


def test_tpe_finds_what_is_good_for_each_search_by_itself(tmp_path):
    store, search = Store(f"journal:{tmp_path}/log"), Search((1e-4, 1.0), trials=14)
    good = {0: 3e-3, 1: 3e-1}
    planned(store, search, *(replace(SPEC, seed=seed) for seed in good))
    off = {seed: [] for seed in good}
    while (claimed := store.claim()) is not None:
        seed, lr = claimed.spec.seed, claimed.spec.schedule.lr(0)
        distance = abs(math.log10(lr / good[seed]))
        off[seed].append(distance)
        ended(store, claimed, 90.0 - 10 * distance)
    for found in off.values():
        assert len(found) == 14
        assert min(found) < 0.25
        assert sorted(found[-6:])[2] < 0.6  # 1 and more where they are drawn at random
    best = best_of_searches(results(store))
    assert len(best) == 3


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_stops_what_does_badly_beside_others(tmp_path, pruner):
    store = Store(f"journal:{tmp_path}/log")
    planned(store, Search((1e-3, 1.0), trials=8, pruner=pruner), retraining("F9,1e-1"))
    stopped = []
    for place in range(8):
        claimed = store.claim()
        value = 90.0 - place
        try:
            for epoch in range(1, 10):
                claimed.searched.look(after(epoch, value))
                claimed.searched.look(after(epoch, value))  # as when a training is taken up
        except KeyboardInterrupt:
            stopped.append(place)
        ended(store, claimed, value)
    assert stopped
    assert min(stopped) > 0
    assert store.counts("x") == {"finished": 8 - len(stopped), "stopped": len(stopped)}
    for row in results(store):
        if row["status"] == "stopped":
            assert row["final"] is None
            assert 1 <= row["stopped"] < 9


def test_a_probe_s_number_is_watched_the_way_that_is_better(tmp_path):
    store = Store(tmp_path / "study.db")
    spec = replace(SPEC, probes=("gradient",), probe_epochs=(1, 2))
    for name, wanted in (("metric", 3.0), ("gradient.loss", -3.0)):
        planned(store, Search((1e-3, 1.0), trials=1, watch=name), spec)
        claimed = store.claim()
        claimed.searched.look(after(1, 3.0))
        held = store.queue.storage.get_trial(claimed.trial)
        assert held.intermediate_values == {1: wanted}
        assert held.user_attrs[SEARCH]["chosen"] == 0.1 == held.params["lr"]
        ended(store, claimed, 1.0)


def test_the_number_of_runs_may_grow_and_the_range_may_not():
    search = Search((1e-3, 1.0))
    same = Slot(replace(search, trials=50), 3)
    assert Slot(search, 3).digest(SPEC) == same.digest(SPEC)
    for other in (Slot(replace(search, lr=(1e-3, 0.5)), 3), Slot(search, 4)):
        assert other.digest(SPEC) != same.digest(SPEC)


def test_recipes_keep_all_but_their_lr():
    base = pretraining("F4,1e-1")
    for recipe in ("P2F2,3e-2(+2)", "P2/F2,3e-2", "F3,3e-2"):
        spec = retraining(recipe.replace("3e-2", "1e-1"), base=base)
        assert with_lr(spec, 3e-2).digest == retraining(recipe, base=base).digest


@pytest.mark.parametrize(
    ("options", "recipe", "said"),
    [
        ({"lr": [1e-1, 1e-3]}, "F2,1e-1", "lr is the smallest and the largest LR"),
        ({"lr": [0.1]}, "F2,1e-1", "not .0.1."),
        ({"trials": 0}, "F2,1e-1", "trials are from 1 to"),
        ({"sampler": "tp"}, "F2,1e-1", "'tp' is no sampler: did you mean 'tpe'"),
        ({"pruner": "halving"}, "F2,1e-1", "'halving' is no pruner: choose from none, median"),
        ({"watch": "gradient.loss"}, "F2,1e-1", "name gradient in probes, and probe_epochs"),
        ({"trial": 3}, "F2,1e-1", "'trial' is no key of search: did you mean 'trials'"),
        ({}, {"recipe": "0:1e-1", "epochs": 2}, "a search chooses the first LR of a recipe"),
    ],
)
def test_a_search_that_cannot_be_is_refused(options, recipe, said):
    with pytest.raises(StudyError, match=said):
        replace(searched(None, **options), recipes=recipe).plan()
