"""Fixtures of more than one test file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# A busy machine is slow now and then, which says nothing of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

LONG = (
    *("test_ranks", "test_layout", "test_store", "test_gallery", "test_two_facts"),
    *("test_dense_reference", "test_few_vectors", "test_kill"),
)
"""The files that take longest: begun first, so that no process is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks are slower on two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def few_digits() -> Iterator[None]:
    """Lend the first digits in the place of all, in this process, for the tests of one file."""
    from small_training import few_digits

    held = few_digits(320, 120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainscope.data.embedded.digits", lambda: held)
        yield
