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
import os, sys
from trainscope import diagnose
from trainscope.cli.main import main
child = os.fork()  # one start of Python for two processes
os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(int(child == 0))
os.environ["WORLD_SIZE"] = os.environ["LOCAL_WORLD_SIZE"] = "2"
code = None
try:
    main(sys.argv[1:])
except SystemExit as error:
    code = error.code
if child:
    _, status = os.waitpid(child, 0)
    sys.stderr.write(f"ended with {code} and {os.waitstatus_to_exitcode(status)}")
sys.exit(code)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file of a small network's weights."""
    path = tmp_path_factory.mktemp("networks") / "weights.pt"
    torch.manual_seed(0)
    torch.save(build("lenet5", 10).state_dict(), path)
    return path


def both(*args, cwd):
    """Run a command in two processes; return stdout and stderr of both together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", JOB, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        cwd=cwd,
        env=os.environ | known,
    )


QUICK = ("--samples", 5, "--probes", "gradient,jacobian", "--budget", "none")


def test_two_processes_print_and_write_once_what_one_does(weights, tmp_path):
    asked = ("probe", weights, "--ratio", 0.5, "--json", *QUICK)
    done = both(*asked, "--output", tmp_path / "out", cwd=tmp_path)
    assert done.stderr.endswith("ended with 0 and 0"), done.stderr
    got, alone = json.loads(done.stdout), json.loads(invoke(*asked).stdout)
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
    assert json.loads((tmp_path / "out" / "diagnosis.json").read_text()) == got


def test_two_processes_refuse_in_one_sentence(tmp_path):
    done = both("probe", tmp_path / "none.pt", *QUICK, cwd=tmp_path)
    said = [line for line in done.stderr.splitlines() if line.startswith("trainscope: ")]
    assert len(said) == 1
    assert "there is no such file" in said[0]
    assert done.stderr.endswith("ended with 2 and 2")
    assert done.stdout == ""


def test_other_commands_are_run_by_the_first_process_alone(weights, monkeypatch):
    assert "lenet5" in invoke("inspect", weights).output
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert invoke("inspect", weights).output == ""
