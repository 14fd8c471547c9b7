"""Every command ends in 0, in 2 and one sentence, in 130, or in one line that says it is a bug."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import click
import pytest
import torch
from click.testing import CliRunner

from trainscope.cli import schedule
from trainscope.cli.main import COMMANDS, main
from trainscope.cli.printing import show
from trainscope.errors import RecordError

PLACES = [
    ("probe", "CHECKPOINT", "--output"),
    ("inspect", "CHECKPOINT"),
    ("retrain", "CHECKPOINT", "--recipe", "F1,1e-2", "--output"),
    ("retrain", "CHECKPOINT", "--recipe", "F1,1e-2", "--rewind-to"),
    ("train", "--arch", "digits_resnet", "--data", "digits", "--recipe", "F1,1e-2", "--output"),
    ("pipeline", "--recipe", "P1F1,1e-2", "--ratio", "0.5", "--output"),
    ("pipeline", "--recipe", "P1F1,1e-2", "--ratio", "0.5", "--stem"),
    ("scratch", "--like"),
    ("scratch", "--like", "CHECKPOINT", "--recipe", "F1,1e-2", "--output"),
    ("import",),
    ("import", "LOG", "--output"),
    ("compare",),
    ("compare", "LOG", "--output"),
    ("compare", "LOG", "--figures"),
    ("estimate",),
    ("estimate", "LOG", "--target", "90", "--match"),
    ("estimate", "LOG", "--target", "90", "--plot"),
    ("schedule", "F90,1e-1", "--plot"),
    ("demo", "--output"),
]


def check_one_line(result, code, *words):
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("trainscope: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "y/" * 3000])
@pytest.mark.parametrize("command", PLACES, ids=" ".join)
def test_names_that_nothing_can_have_are_refused_everywhere(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log.csv"
    log.write_text("epoch,lr,accuracy\n1,1e-3,40\n2,1e-3,50\n3,1e-3,55\n")
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    places = {"LOG": str(log), "CHECKPOINT": str(tmp_path / "checkpoint.pt")}
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, [*(places.get(part, part) for part in command), name])
    check_one_line(result, 2)
    assert "this is a bug" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def raising(monkeypatch):
    """Let `trainscope schedule` raise something."""

    def end(error, *options, before=(), env=None):
        def fail(**_):
            raise error

        monkeypatch.setattr(schedule.command, "callback", fail)
        return CliRunner().invoke(main, [*before, "schedule", "F90,1e-1", *options], env=env)

    return end


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RecordError("a\nb"), 2, "trainscope: a b"),
        (RecordError("a\x1b[31m\ud800[red]b"), 2, "a\\x1b[31m\\ud800[red]b"),
        (click.UsageError("no such thing."), 2, "no such thing."),
        (MemoryError(), 2, "the memory is used up"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "the memory is used up"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 2, "the memory is used"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "/x/y: "),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("x"), 1, "this is a bug in trainscope (KeyError: 'x'); please report"),
        (RuntimeError("shapes\ndiffer"), 1, "'Reporting a bug' in trainscope's README.md"),
        (AssertionError(), 1, "this is a bug in trainscope (AssertionError);"),
    ],
)
def test_whatever_a_command_raises_is_one_line(raising, error, code, words):
    check_one_line(raising(error), code, words)


def test_a_reader_that_has_gone_is_no_error(raising):
    result = raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.output) == (0, "")


def test_tracebacks_are_shown_where_they_are_asked_for(raising):
    for result in (
        raising(KeyError("x"), "--debug"),
        raising(KeyError("x"), before=["--debug"]),
        raising(KeyError("x"), env={"TRAINSCOPE_DEBUG": "1"}),
    ):
        assert result.exit_code == 1
        assert "Traceback (most recent call last)" in result.stderr
        assert "this is a bug" in result.stderr.splitlines()[-1]
    assert "Traceback" not in raising(KeyError("x"), env={"TRAINSCOPE_DEBUG": "0"}).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_debug(command):
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert result.stdout.count("--debug") == 1


def test_sigterm_ends_a_command_as_ctrl_c_does(monkeypatch):
    def terminated(**_):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)
        raise AssertionError("it goes on")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(schedule.command, "callback", terminated)
    check_one_line(CliRunner().invoke(main, ["schedule", "F90,1e-1"]), 130, "interrupted")
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_no_command_is_one_sentence_and_nothing_at_all_is_the_help():
    check_one_line(CliRunner().invoke(main, ["--nonsense"]), 2, "--nonsense")
    check_one_line(CliRunner().invoke(main, ["nonsense"]), 2, "nonsense")
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 0
    assert "\nMeasure:\n" in result.stdout


def run(command, **options):
    return subprocess.run(
        [sys.executable, "-m", "trainscope", *command],
        check=False,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_stdout_that_is_full_is_one_sentence():
    for command in (("schedule", "F90,1e-1"), ("schedule", "F90,1e-1", "--json"), ("--help",)):
        with open("/dev/full", "w") as full:
            result = run(command, stdout=full)
        assert result.returncode == 2
        assert b"No space left on device" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_stdout_that_nobody_reads_or_that_is_closed_is_silent():
    read, write = os.pipe()
    os.close(read)
    result = run(("schedule", "F90,1e-1"), stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")
    result = run(("schedule", "F90,1e-1"), preexec_fn=lambda: os.close(1))
    assert (result.returncode, result.stderr) == (0, b"")


def test_any_encoding_prints(raising):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = run(("schedule", "→×±λ"), stdout=subprocess.PIPE, env=env)
    assert result.returncode == 2
    assert b"'->x+/-lambda' is no recipe" in result.stderr


def test_json_is_json_in_any_encoding(monkeypatch):
    from trainscope.cli.printing import say_json

    def printed(**_):
        say_json(json.dumps({"a": "→😀\ud800"}, ensure_ascii=False))

    monkeypatch.setattr(schedule.command, "callback", printed)
    result = CliRunner(charset="latin-1").invoke(main, ["schedule", "F90,1e-1"])
    assert json.loads(result.stdout) == {"a": "→😀\ud800"}


def test_what_a_file_says_is_text_and_no_markup(monkeypatch):
    from rich.table import Table
    from rich.text import Text

    def printed(**_):
        table = Table("w[red]\n\x1bx", box=None)
        table.add_row("[/x]:smile:\x1b[31m")
        show(table, Text("a\x1b]0;b\nd"), "c\x9b[/]\ne")

    monkeypatch.setattr(schedule.command, "callback", printed)
    result = CliRunner().invoke(main, ["schedule", "F90,1e-1"])
    assert result.exit_code == 0, result.stderr
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    table = [" w[red]", " \\x1bx", " [/x]:smile:\\x1b[31m"]
    assert lines == [*table, "a\\x1b]0;b", "d", "c\\x9b[/]", "e"]


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("probee", "x.pt"), "No such command 'probee'. Did you mean 'probe'?"),
        (("Compare",), "Did you mean 'compare'?"),
        (("zzz",), "Choose from demo, probe,"),
        (("here.pt", "--ratio", "0.5"), "'trainscope probe here.pt' measures it."),
        (("study", "reslts", "x"), "No such command 'reslts'. Did you mean 'results'?"),
        (("study", "zzz"), "Choose from "),
    ],
)
def test_a_name_that_is_no_command_is_answered_with_what_was_meant(
    args, hint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.pt").touch()
    result = CliRunner().invoke(main, list(args))
    check_one_line(result, 2, hint, "--help'")


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (("estimate", "no.csv", "--target", "9"), "is empty: give a table with a header and rows"),
        (("correlate", "no.csv"), "is empty: give a table with a header and rows"),
        (("import", "no.csv"), "or a log with its lines"),
        (("study", "results", "gone.db"), "no such file: give the study.db that `trainscope study"),
        (("correlate", "gone"), "no such file: give the study.db that `trainscope study run` made"),
        (("study", "run", "gone.toml"), "No such file or directory; check the path"),
        (("inspect", "run"), "give the checkpoint in it: run/checkpoint.pt"),
        (("compare", "run/checkpoint.pt"), "not text; give the run.json or diagnosis.json beside"),
        (("compare", "run", "--output", "page.pdf"), "page.pdf is no page: end its name in .html"),
        (("study", "report", "x", "--output", "a.png"), "a.png is no page: end its name in .html"),
        (("correlate", "rows.csv"), "there are lr, end; say which is the end with --target"),
    ],
)
def test_what_is_empty_or_not_there_is_told_with_what_to_give(args, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.csv").touch()
    (tmp_path / "rows.csv").write_text("lr,end\n1,2\n2,3\n3,4\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\xff\xfe\x80")
    result = CliRunner().invoke(main, list(args))
    check_one_line(result, 2, advice)


def test_a_dash_is_no_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("epoch,lr,val_acc\n1,.1,40\n2,.1,50\n")
    result = CliRunner().invoke(main, ["import", "log.csv", "--output", "-"])
    assert result.exit_code == 2
    assert "'-' is no name: what goes to stdout goes there without this option" in result.output
    assert [each.name for each in tmp_path.iterdir()] == ["log.csv"]


def test_an_interrupt_before_all_is_imported_is_a_line_and_130():
    code = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'trainscope.cli.main':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from trainscope.cli.begin import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "trainscope: interrupted\n")
