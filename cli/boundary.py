"""How a command ends: 0, 2 and one sentence, 130, or 1 and one line that says it is a bug."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from trainscope.cli.nearest import Nearest
from trainscope.cli.printing import any_encoding, remark
from trainscope.errors import TrainscopeError

FINE, BUG, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""The exit codes; 130 is what shells give to a command ended by Ctrl-C."""

DEBUG = "TRAINSCOPE_DEBUG"
"""The environment variable that asks for tracebacks, as --debug does."""

BUG_LINE = "trainscope: this is a bug in trainscope"

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says, in a plain RuntimeError, where memory ran out."""


def is_first() -> bool:
    """Tell whether this process prints and writes: of those that torchrun started, the first."""
    count = os.environ.get("WORLD_SIZE", "1")
    return not count.isdigit() or int(count) < 2 or os.environ.get("RANK", "0") == "0"


class _Caught(Exception):  # noqa: N818  # it carries an error and is none
    """Carries an error past click, which would end the process in its own way."""


def debug_option() -> click.Option:
    """Return the option --debug, which every command has."""

    def ask(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().obj[DEBUG] = True

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=ask, help="Show tracebacks."
    )


class Boundary(Nearest):
    """A group whose commands end in one of four ways, whatever happens in them."""

    def main(self, args: Any = None, prog_name: str | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command that is asked for, and end the process."""
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        asked: dict[str, bool] = {}
        extra |= {"standalone_mode": False, "obj": asked}
        with any_encoding(), terminating(), quiet_unless_first():
            try:
                ended = super().main(args, prog_name or "trainscope", *more, **extra)
                code = ended if isinstance(ended, int) else FINE
                sys.stdout.flush()
            except SystemExit as error:  # a line was said already
                code = error.code if isinstance(error.code, int) else BUG
            except BaseException as error:
                cause = error.args[0] if isinstance(error, _Caught) else error
                debug = DEBUG in asked or os.environ.get(DEBUG, "0") not in ("", "0")
                code = report_failure(cause, debug=debug)
            finally:
                _let_go()
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command, and carry what it raises to `main`."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, SystemExit):
            raise
        except BaseException as error:
            raise _Caught(error) from error


def report_failure(error: BaseException, *, debug: bool) -> int:
    """Say on stderr, in one line, what ended a command; return the exit code.

    Args:
        error: What it raised.
        debug: Print the traceback first.
    """
    if debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            remark(line)
    if isinstance(error, BrokenPipeError):  # as `| head` does, which has read enough
        return FINE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        remark("trainscope: interrupted")
        return INTERRUPTED
    sentence = sentence_of(error)
    if sentence is not None:
        remark(f"trainscope: {' '.join(sentence.split())}")
        return REFUSED
    message = " ".join(str(error).split())
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    shown = what if len(what) <= 300 else f"{what[:300]}…"
    remark(
        f"{BUG_LINE} ({shown}); please report this line, the command "
        f"and what --debug prints, as 'Reporting a bug' in trainscope's README.md says"
    )
    return BUG


def sentence_of(error: BaseException) -> str | None:
    """Return what a person can do about an error; None where it is a bug."""
    if isinstance(error, TrainscopeError):
        return str(error)
    if isinstance(error, click.ClickException):
        where = getattr(error, "ctx", None)
        help_is = "" if where is None else f" See '{where.command_path} --help'."
        message = error.format_message()
        return f"{message if message.endswith(('.', '?', '!')) else f'{message}.'}{help_is}"
    text = str(error)
    short_of_memory = isinstance(error, RuntimeError) and any(part in text for part in NO_MEMORY)
    if isinstance(error, MemoryError) or short_of_memory:
        return (
            "the memory is used up: use fewer --samples, a smaller --batch-size or network, or a "
            "device with more memory"
        )
    if isinstance(error, RecursionError):
        return "something in the input is nested too deeply to be walked: give it in a flatter form"
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{error.filename}: "
        return f"{name}the system refused ({error.strerror or error}); put that right and try again"
    return None


@contextmanager
def quiet_unless_first() -> Iterator[None]:
    """Drop what a process prints that is not the first of its job; a bug is still said."""
    if is_first():
        yield
        return
    streams, said = (sys.stdout, sys.stderr), io.StringIO()
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        sys.stdout, sys.stderr = nothing, said
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams
            for line in said.getvalue().splitlines():
                if line.startswith(BUG_LINE):
                    remark(line)


@contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP where nobody ignores it, end the block as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go() -> None:
    """Drop what is left for a stream that takes nothing, or Python complains of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
