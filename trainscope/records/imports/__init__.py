"""Runs made from other tools' logs, a file a format."""

from trainscope.records.imports.given import Given
from trainscope.records.imports.read import FORMATS, recognise, run_from_log

__all__ = ["FORMATS", "Given", "recognise", "run_from_log"]
