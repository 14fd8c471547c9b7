from __future__ import annotations

import pytest
import torch

from trainscope.networks.threads import SMALL, suited_threads


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_small_network_has_one_thread_and_a_large_one_all():
    with suited_threads(SMALL - 1):
        assert torch.get_num_threads() == 1
    with suited_threads(SMALL):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("threads")
def test_the_number_is_put_back_after_an_error():
    with pytest.raises(ValueError, match="inside"), suited_threads(1):
        raise ValueError("inside")
    assert torch.get_num_threads() == 2
