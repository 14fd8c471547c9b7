"""Two processes measure what one does, end together where one fails, and never hang."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import two_ranks

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is not distributed"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]
PATIENCE = 400
"""Seconds after which the job hangs, and the tests fail for that."""
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what one process finds, and then what each of two does."""
    store = tmp_path_factory.mktemp("ranks") / "store"
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_ranks", str(store)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3, done.stderr[-5000:]
    alone, *both = lines
    return alone, sorted(both, key=lambda each: each["rank"])


def differences(one, two, where=""):
    """Yield where two trees of plain values differ by more than rounding in float64."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        for key in one.keys() - {"notes"}:
            yield from differences(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for i, pair in enumerate(zip(one, two, strict=True)):
            yield from differences(*pair, f"{where}[{i}]")
    elif isinstance(one, float) and isinstance(two, float):
        if not math.isclose(one, two, rel_tol=1e-6, abs_tol=1e-11):
            yield f"{where}: {one} and {two}"
    elif one != two:
        yield f"{where}: {one} and {two}"


@pytest.mark.parametrize("case", two_ranks.CASES)
def test_two_processes_find_what_one_does(case, found):
    alone, both = found
    _, network, probes = two_ranks.CASES[case]
    for rank in both:
        for probe in probes:
            expected, got = alone[network][probe], rank[case][probe]
            assert expected["status"] == "ok"
            assert not list(differences(expected, got)), probe
            assert expected["notes"].keys() == got["notes"].keys()


@pytest.mark.parametrize("way", ["copies", "fsdp"])
def test_learning_rates_are_tried_in_either_process(way, found):
    alone, both = found
    for rank in both:
        assert not list(differences(alone["trained"], rank[f"trained, {way}"]))
    assert len(alone["trained"]["scalars"]) == 5


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    "said", ["ProbeError: a sentence", "OverTimeError: ", "KeyboardInterrupt: ", "ValueError: x"]
)
def test_what_ends_one_process_ends_both_in_the_same_way(said, wrong, found):
    kind = said.partition(":")[0]
    assert [rank["said"][f"{kind} on {wrong}"] for rank in found[1]] == [said, said]


def test_the_processes_go_on_together_after_errors(found):
    alone, both = found
    for rank in both:
        for when in ("after them", "together again"):
            assert rank["said"][when] == pytest.approx(alone["loss"], rel=1e-12)
    assert both[0]["said"]["meant alone"] == pytest.approx(alone["loss"], rel=1e-12)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("another network", "rank 1 has another network than rank 0: measure the same one"),
        ("other weights", "rank 1 has other weights than rank 0: load the same ones"),
        ("another seed", "rank 1 has the seed 1 and rank 0 0: give the same one"),
        ("other probes", "the processes of the job do not do the same"),
    ],
)
def test_what_differs_between_processes_is_refused_in_both(case, said, found):
    for rank in found[1]:
        assert rank["said"][case].startswith(f"ProbeError: {said}")


def test_the_samples_are_those_of_the_first_process(found):
    alone, both = found
    for rank in both:
        assert rank["said"]["other samples"] == pytest.approx(alone["loss"], rel=1e-12)


def test_a_nan_in_one_share_is_the_reason_in_both(found):
    assert {rank["said"]["nan on 1"] for rank in found[1]} == {two_ranks.NAN}


def test_one_process_does_not_wait_for_ever(found):
    said = found[1][0]["said"]["on 0 alone"]
    assert said.startswith(
        "ProbeError: rank 0 measures, and rank 1 did not come within 0.5 s, though all 2 processes"
    )
    assert "trainscope.probes.alone()" in said


def test_a_spread_network_is_not_measured_by_one_process_alone(found):
    for rank in found[1]:
        assert rank["said"]["spread and alone"].startswith(
            "ProbeError: the parameter '0.weight' is spread over 2 of the processes, and 1 of them"
        )


def test_wrapped_and_spread_modules_are_measured_by_the_front_door(found):
    alone, both = found
    for rank in both:
        assert rank["said"]["a module"] == pytest.approx([alone["loss"]] * 2, rel=1e-6)


# ---- hooks


@pytest.mark.parametrize("way", ["ddp", "fsdp", "tensor parallel"])
def test_hooks_measure_in_both_processes_and_the_first_writes(way, found):
    first, second = (rank[f"hook, {way}"] for rank in found[1])
    assert first["same"]  # bit for bit, with and without a hook
    assert second["same"]
    assert second["taken"] == []
    steps = [[s, "after step", p, "ok"] for s in range(3) for p in ("gradient", "curvature")]
    norms = [[s, "after clipping", "step_gradient", "ok"] for s in (1, 2)]
    assert sorted(first["taken"]) == sorted(steps + norms)
    assert first["last"] == second["last"]
    assert not first["lines"]
    assert not second["lines"]


def test_two_ranks_train_to_the_same_bits_whatever_is_observed(found):
    first, second = (rank["observed"] for rank in found[1])
    # 2 norms, 1 before clipping, 2 probes at 3 moments and before an action.
    assert first == {"same": True, "taken": ["ok"] * 11, "norm": [True]}
    assert second == {"same": True, "taken": [], "norm": []}


@pytest.mark.parametrize("way", ["fsdp", "tensor parallel"])
def test_a_spread_network_is_measured_as_one_that_is_not(way, found):
    """The three trainings are one, but for rounding."""
    expected, got = (found[1][0][f"hook, {each}"] for each in ("ddp", way))
    assert not list(differences(expected["norms"], got["norms"]))
    assert not list(differences(expected["last"], got["last"]))


def test_a_hook_on_the_first_process_alone_says_so_and_goes_on(found):
    first, second = (rank["hook on 0"] for rank in found[1])
    assert [line.partition(",")[0] for line in first["lines"]] == ["rank 0 measures"]
    assert first["lines"][0].endswith("the hook goes on in this process alone")
    assert {status for *_, status in first["taken"]} == {"ok"}
    assert len(first["taken"]) == 8
    assert first["same"]
    assert second["same"]
    assert second["taken"] == []
