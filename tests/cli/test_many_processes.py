"""Commands that torchrun starts several times: all measure, and the first prints and writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from tests.commands import invoke
from trainscope.networks import build

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is not distributed"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]
PATIENCE = 300

JOB = """
import json, os, sys
from trainscope import diagnose
from trainscope.cli.main import main


def forked(rank):
    child = os.fork()
    if child:
        return child
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    os.environ["WORLD_SIZE"] = os.environ["LOCAL_WORLD_SIZE"] = "2"
    code = 1
    try:
        main(arguments)
    except SystemExit as error:
        code = error.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for port, arguments in json.loads(sys.argv[1]):  # one start of Python for all processes
    os.environ["MASTER_PORT"] = str(port)
    children = [forked(rank) for rank in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for stream in (sys.stdout, sys.stderr):
        stream.write(f"{codes}\\n\\f")
        stream.flush()
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file of a small network's weights."""
    path = tmp_path_factory.mktemp("networks") / "weights.pt"
    torch.manual_seed(0)
    torch.save(build("lenet5", 10).state_dict(), path)
    return path


QUICK = ("--samples", 5, "--probes", "gradient,jacobian", "--budget", "none")
ENDED = "[{}, {}]\n"


def measuring(weights):
    return ("probe", weights, "--structure", "unstructured", "--ratio", 0.5, "--json", *QUICK)


@pytest.fixture(scope="module")
def both(weights, tmp_path_factory):
    """Run two commands in two processes each; return the stdout and stderr of each command."""
    folder = tmp_path_factory.mktemp("both")
    commands = (
        (*measuring(weights), "--output", folder / "out"),
        ("probe", folder / "none.pt", *QUICK),
    )
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (one, other)]
    jobs = [(port, [*map(str, args)]) for port, args in zip(ports, commands, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", JOB, json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        cwd=folder,
        env=os.environ | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"},
    )
    said = [stream.split("\f") for stream in (done.stdout, done.stderr)]
    return folder, [*zip(*said, strict=True)]


def test_two_processes_print_and_write_once_what_one_does(weights, both):
    folder, ((out, err), *_) = both
    assert err.endswith(ENDED.format(0, 0)), err
    got = json.loads(out.removesuffix(ENDED.format(0, 0)))
    alone = json.loads(invoke(*measuring(weights)).stdout)
    assert got["environment"]["processes"] == "2"
    assert "processes" not in alone["environment"]
    for probe in ("gradient", "jacobian"):
        for column in ("before", "after"):
            rows = (found["probes"][probe][column]["scalars"] for found in (got, alone))
            for (name, one), (same, two) in zip(*(each.items() for each in rows), strict=True):
                assert name == same
                assert (one["value"] is None) == (two["value"] is None), name
                if one["value"] is not None:
                    assert one["value"] == pytest.approx(two["value"], rel=1e-4), name
    assert json.loads((folder / "out" / "diagnosis.json").read_text()) == got


def test_two_processes_refuse_in_one_sentence(both):
    out, err = both[1][1]
    said = [line for line in err.splitlines() if line.startswith("trainscope: ")]
    assert len(said) == 1
    assert "there is no such file" in said[0]
    assert out == ENDED.format(2, 2)
    assert err.endswith(ENDED.format(2, 2))


def test_other_commands_are_run_by_the_first_process_alone(weights, monkeypatch):
    assert "lenet5" in invoke("inspect", weights).output
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert invoke("inspect", weights).output == ""
