"""`python -m trainscope`: the command, where its script is not on the path."""

from __future__ import annotations

from trainscope.cli.begin import main

main()
