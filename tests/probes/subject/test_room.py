"""The memory that a probe may take on a device."""

from __future__ import annotations

import pytest
import torch

from trainscope.probes.subject.room import room


@pytest.mark.parametrize(
    ("free", "expected"), [(2**30, 2**28), (2**32, 2**29), (2**32 - 1, 2**28), (2**36, 2**33)]
)
def test_a_gpu_lends_a_part_of_what_it_has_free(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**37))
    assert room(torch.device("cuda"), 2**28) == expected
    assert room(torch.device("cpu"), 2**28) == 2**28
