"""A Run sent epoch by epoch: nothing twice, whatever was killed or failed, and nothing lost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import small_training
from diagnoses import diagnosis

from trainscope.errors import ProbeError
from trainscope.probes.reported import of_diagnosis, of_run, parameters_of
from trainscope.probes.reporting import LEDGER, Reporter, report
from trainscope.probes.sinks import About, Memory
from trainscope.probes.sinks.sink import numbers, series
from trainscope.records import RunStatus
from trainscope.training.runner import Watch, run_job


class Service:
    """A tracker's server: runs by id, which outlive the process that writes them."""

    def __init__(self):
        self.runs: dict[str, list] = {}
        self.up = True


class Client(Memory):
    """A sink of that server; `late` of its writes are lost with the process."""

    def __init__(self, service, *, tells=True):
        super().__init__()
        self.service, self.id, self.begun, self.closed = service, None, [], 0
        if tells:
            self.seen = self._seen

    @property
    def run_id(self):
        return self.id

    def begin(self, about):
        self.begun.append(about)
        self.id = self.id or about.resume

    def write(self, taken):
        if not self.service.up:
            raise ConnectionError("no route to host")
        if self.id is None:
            self.id = f"run {len(self.service.runs)}"
        self.service.runs.setdefault(self.id, []).append(taken)

    def _seen(self, key):
        if not self.service.up:
            raise ConnectionError("no route to host")
        steps = [t.step for t in self.service.runs.get(self.id, []) if key in numbers(t)]
        return max(steps, default=None)

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    watch = Watch((small_training.hook(),))
    return run_job(small_training.retraining("F4,1e-2"), folder, watch=watch)


def reporter(service, folder, said=None, **how):
    said = [] if said is None else said
    return Reporter({"one": Client(service, **how)}, About(), folder / LEDGER, said.append)


def test_a_run_is_its_start_its_epochs_with_what_was_measured_in_them_and_its_result(run):
    items = of_run(run)
    assert [(series(item), item.step) for item in items if series(item) == "training"] == [
        ("training", epoch) for epoch in range(5)
    ]
    assert series(items[-1]) == "result"
    assert items[-1].measurement.value("final_accuracy") == run.final_accuracy
    assert items[-1].measurement.value("trainability_accuracy") == run.trainability_accuracy()
    assert [i for i in items if series(i) not in ("training", "result")] == list(run.measurements)
    losses = [i.measurement.get("train_loss") for i in items if series(i) == "training"][1:]
    assert losses == [record.train_loss for record in run.epochs]
    places = [items.index(taken) for taken in run.measurements]
    for taken, place in zip(run.measurements, places, strict=True):  # before its epoch's end
        ends = [i for i, item in enumerate(items) if series(item) == "training" and i > place]
        assert items[ends[0]].epoch >= taken.epoch
    assert parameters_of(run)["structure"] == "unstructured"
    assert parameters_of(run)["schedule"] == run.schedule


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("killed_after", [1, 4, 7, 9])
def test_what_was_killed_goes_on_in_the_same_run_and_sends_nothing_twice(
    run, tmp_path, tells, killed_after
):
    service, items = Service(), of_run(run)
    first = reporter(service, tmp_path, tells=tells)
    first.update(items[:killed_after])
    second = reporter(service, tmp_path, tells=tells)
    second.update(items[: killed_after + 1])
    second.update(items[: killed_after + 1])
    second.end(run)
    third = reporter(service, tmp_path, tells=tells)
    third.end(run)
    assert service.runs == {"run 0": items}


def test_a_kill_in_the_middle_of_sending_is_made_good_where_the_tracker_tells(run, tmp_path):
    service, items = Service(), of_run(run)
    reporter(service, tmp_path).update(items[:6])
    noted = json.loads((tmp_path / LEDGER).read_text())
    assert noted == {"one": {"run": "run 0", "sent": 6}}
    del service.runs["run 0"][3:]  # taken, and lost with the process before they were stored
    reporter(service, tmp_path).end(run)
    assert service.runs == {"run 0": items}
    service.runs["run 0"] = items[:6]
    (tmp_path / LEDGER).write_text(json.dumps({"one": {"run": "run 0", "sent": 2}}))
    reporter(service, tmp_path).end(run)
    assert service.runs == {"run 0": items}


def test_a_kill_in_the_middle_of_sending_never_sends_twice_where_it_does_not(run, tmp_path):
    service, items = Service(), of_run(run)
    client, noted = Client(service, tells=False), []
    real = client.write

    def write(taken):
        real(taken)
        if (tmp_path / LEDGER).exists():
            noted.append(json.loads((tmp_path / LEDGER).read_text())["one"]["sent"])

    client.write = write
    killed = Reporter({"one": client}, About(), tmp_path / LEDGER)
    killed.update(items[:3])
    killed.update(items[:6])
    assert noted == [6, 6, 6]  # said before it is done


def test_a_service_that_is_away_gets_all_when_it_is_back_and_it_is_said_once(run, tmp_path):
    service, items, said = Service(), of_run(run), []
    one = reporter(service, tmp_path, said)
    one.update(items[:3])
    service.up = False
    one.update(items[:5])
    one.update(items[:6])
    assert len(said) == 1
    assert (
        "the sink Client failed (ConnectionError: no route to host): the training goes" in said[0]
    )
    service.up = True
    one.end(run)
    assert service.runs == {"run 0": items}
    assert len(said) == 1


def test_what_was_not_sent_is_said_and_the_next_call_sends_it(run, tmp_path):
    service, items, said = Service(), of_run(run), []
    one = reporter(service, tmp_path, said)
    one.update(items[:3])
    service.up = False
    one.end(run)
    one.close()
    assert f"has not taken {len(items) - 3} of {len(items)} measurements" in said[-1]
    assert "the same command sends the rest" in said[-1]
    two = reporter(service, tmp_path, said)  # it cannot even be asked yet
    two.update(items)
    service.up = True
    two.end(run)
    assert service.runs == {"run 0": items}


def test_a_ledger_that_is_damaged_begins_a_new_run(run, tmp_path):
    service = Service()
    (tmp_path / LEDGER).write_text("{")
    reporter(service, tmp_path).end(run)
    assert service.runs == {"run 0": of_run(run)}


def test_a_training_that_is_reported_is_the_same_run(run, tmp_path):
    service = Service()
    one = reporter(service, tmp_path)
    watch = Watch((small_training.hook(),), on_state=one.on_state)
    same = run_job(small_training.retraining("F4,1e-2"), tmp_path / "run", watch=watch)
    sent = list(service.runs["run 0"])
    assert len(sent) == len(of_run(same)) - 1
    one.end(same)
    assert service.runs == {"run 0": of_run(same)}
    assert small_training.without_seconds(same) == small_training.without_seconds(run)


def test_a_saved_run_is_sent_later(run):
    memory = Memory()
    report(run, memory)
    assert memory.taken == of_run(run)
    stopped = replace(run, status=RunStatus.INTERRUPTED)
    assert of_run(stopped) == of_run(run)[:-1]
    service = Service()
    service.up = False
    with pytest.raises(ProbeError, match=r"the sink Client took 0 of \d+ measurements: Connection"):
        report(run, Client(service))


def test_a_diagnosis_is_its_columns():
    found = diagnosis()
    items = of_diagnosis(found)
    moments = {item.moment for item in items}
    assert moments >= {"before action", "after action"}
    for item in items:
        columns = found.probes[item.measurement.probe]
        column = {"before action": columns.before, "after action": columns.after}
        assert item.measurement == column.get(item.moment, columns.recalibrated)
    client = Client(Service())
    report(found, client, project="p", name="n")
    (about,) = client.begun
    assert (about.project, about.name) == ("p", "n")
    assert about.parameters["verdict"] == " ".join(found.verdict)
    assert client.closed == 1
