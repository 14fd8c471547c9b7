"""Files that appear whole or not at all; folders that go again; nobody else's files touched."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from trainscope.errors import RecordError
from trainscope.records.files import folder, replacing, write_text

LIMIT = 4096


@pytest.fixture
def full_disk():
    """A system that takes no more than 4 KB a file, as a full disk takes no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def text_of(path):
    return path.read_text(encoding="utf-8")


def write_bytes(file):
    file.write(bytes(10 * LIMIT))


def write_tensors(file):
    torch.save({"weight": torch.zeros(10 * LIMIT)}, file)


def write_picture(file):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8))
    figure.subplots().plot(torch.randn(2000, generator=torch.Generator().manual_seed(0)))
    figure.savefig(file, format="svg")


@pytest.mark.parametrize("write", [write_bytes, write_tensors, write_picture])
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_one_sentence_whoever_writes_and_the_old_file_stays(tmp_path, write):
    path = tmp_path / "file"
    write_text(path, "old")

    def change():
        with replacing(path) as file:
            write(file)

    with pytest.raises(RecordError, match=r"file cannot be written: .*; make room there") as told:
        change()
    assert "\n" not in str(told.value)
    assert text_of(path) == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_written_over_and_nothing_else_is_touched(tmp_path):
    others = [tmp_path / name for name in (".run.json.part", ".run.json.abc.part", ".x.partial")]
    for other in others:
        other.write_text("precious")

    def killed():
        with replacing(tmp_path / "run.json") as file:
            file.write(b"half")
            file.flush()
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == 9
    left = set(tmp_path.iterdir()) - set(others)
    assert [path.read_bytes() for path in left] == [b"half"]
    write_text(tmp_path / "run.json", "whole")
    assert set(tmp_path.iterdir()) == {*others, tmp_path / "run.json"}
    assert text_of(tmp_path / "run.json") == "whole"
    assert {text_of(other) for other in others} == {"precious"}


def test_two_writers_at_once_do_not_write_into_one_another(tmp_path):
    path = tmp_path / "page.html"
    with replacing(path) as first:
        first.write(b"first, ")
        with replacing(path) as second:
            second.write(b"second")
        assert text_of(path) == "second"
        first.write(b"and last")
    assert text_of(path) == "first, and last"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_file_of_that_very_name_which_is_a_link_is_not_followed(tmp_path):
    write_text(tmp_path / "a" / "run.json", "old")

    def stop():
        with replacing(tmp_path / "a" / "run.json"):
            raise KeyboardInterrupt(next((tmp_path / "a").glob(".*")).name)

    with pytest.raises(KeyboardInterrupt) as told:
        stop()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a" / str(told.value)).symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a" / "run.json", "new")
    assert text_of(tmp_path / "precious") == "precious"
    assert text_of(tmp_path / "a" / "run.json") == "new"


def test_devices_are_written_to_and_never_replaced():
    write_text(Path(os.devnull), "x")
    assert not os.path.isfile(os.devnull)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_the_device_that_is_always_full(tmp_path):
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(RecordError, match=r"link cannot be written: No space left on device; make"):
        write_text(tmp_path / "link", "x")
    assert not os.path.isfile("/dev/full")


@pytest.mark.parametrize("name", ["file/run.json", "x" * 300, "a\0b", "folder"])
def test_names_that_no_file_can_have_are_one_sentence(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match=r"cannot be written: .*; write elsewhere"):
        write_text(tmp_path / name, "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_long_name_that_a_file_can_have_is_written(tmp_path):
    write_text(tmp_path / ("x" * 255), "x")
    assert os.listdir(tmp_path) == ["x" * 255]


def test_folders_go_again_where_nothing_came_into_them(tmp_path):
    (tmp_path / "old").mkdir()

    def fail(path, *, leave=False):
        with folder(path):
            if leave:
                (path / "kept").touch()
            raise KeyboardInterrupt

    for name in ("old/new/newer", "other", "old"):
        with pytest.raises(KeyboardInterrupt):
            fail(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert not os.listdir(tmp_path / "old")
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "a" / "b", leave=True)
    assert (tmp_path / "a" / "b" / "kept").exists()


def test_text_that_no_encoding_has_is_written_as_its_escape(tmp_path):
    write_text(tmp_path / "a.json", '"\udcff"')
    assert text_of(tmp_path / "a.json") == '"\\udcff"'


def test_a_file_of_another_kind_is_not_written_over(tmp_path):
    path = tmp_path / "a.html"
    write_text(path, "", over="<html>")
    write_text(path, "<html>old", over="<html>")
    write_text(path, "<html>new", over="<html>")
    with pytest.raises(RecordError, match="there already and trainscope did not write it"):
        write_text(path, "{}", over="schema")
    assert text_of(path) == "<html>new"
