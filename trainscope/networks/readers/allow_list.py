"""Classes outside torch that public training scripts save and that are harmless to restore."""

from __future__ import annotations

import argparse

ALLOWED: tuple[type, ...] = (argparse.Namespace,)
"""Restoring one sets attributes and runs no code of a file's choosing."""
