"""Commands, run in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from trainscope.cli.main import main


def invoke(*args: object, code: int = 0) -> Result:
    """Run a command that ends with a code; what it raises beside that is raised here."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result
