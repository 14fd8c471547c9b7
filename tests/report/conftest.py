"""What tests of figures share."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def axes():
    """Return a function that makes empty axes in a figure of their own."""
    return lambda: Figure().subplots()
