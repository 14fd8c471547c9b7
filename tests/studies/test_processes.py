"""A process is gone when it ended, also where its id is used again or nobody asked how it ended."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainscope.studies.processes import is_gone, this_process

pytestmark = pytest.mark.skipif(not this_process(), reason="no /proc tells processes apart here")

SAY = "from trainscope.studies.processes import this_process; print(this_process(), flush=True)"


def test_a_process_is_there_until_it_ends():
    code = f"{SAY}; input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    name = child.stdout.readline().strip()
    assert str(child.pid) in name
    assert not is_gone(name)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and its parent did not look
    assert is_gone(name)
    child.wait()
    assert is_gone(name)
    child.stdout.close()


def test_an_id_that_is_used_again_is_another_process():
    machine, _, told = this_process().partition(" | ")
    pid, begun = told.split()
    assert not is_gone(this_process())
    assert is_gone(f"{machine} | {pid} {int(begun) - 1}")


@pytest.mark.parametrize("name", ["", "another boot pid:[1] | 4194305 7", "x", " | ", "a | b c"])
def test_of_other_machines_nothing_is_said(name):
    assert not is_gone(name)


def test_nobody_is_told_apart_without_the_kernels_word(monkeypatch, tmp_path):
    name = this_process()
    monkeypatch.setattr("trainscope.studies.processes.PROC", tmp_path)
    assert this_process() == ""
    assert not is_gone(name)
