from __future__ import annotations

import sys

import pytest
import torch
from click.testing import CliRunner

from trainscope.cli.main import main
from trainscope.errors import CheckpointError
from trainscope.networks import build
from trainscope.networks.trusting import open_trusting

CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 5)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.last(x.mean((2, 3)))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A pickled network of a class of the user's own, importable for the test."""
    (tmp_path / "users_own_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import users_own_net

    torch.manual_seed(0)
    module = users_own_net.Net().eval()
    path = tmp_path / "own.pt"
    torch.save({"model": torch.nn.DataParallel(module)}, path)
    yield path, module
    sys.modules.pop("users_own_net", None)


def test_a_trusted_file_is_loaded_with_its_own_code(own):
    path, module = own
    opened = open_trusting(path)
    assert opened.num_classes == 5
    assert opened.recognised == "--unsafe-load"
    inputs = torch.randn(2, *opened.input_shape)
    with torch.no_grad():
        assert torch.equal(opened.module(inputs), module(inputs))


def test_the_command_says_what_it_runs_and_only_when_asked(own):
    path, _ = own
    base = ["probe", str(path), "--ratio", "0.5", "--probes", "gradient", "--samples", "4"]
    refused = CliRunner().invoke(main, base)
    assert refused.exit_code == 2
    assert "--model" in refused.stderr
    result = CliRunner().invoke(main, [*base, "--unsafe-load"])
    assert result.exit_code == 0, result.output
    assert "users_own_net.Net" in result.stderr
    assert "with its own code" in result.stdout


def test_what_is_no_network_is_refused(tmp_path):
    torch.save(build("lenet5", 10).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="without --unsafe-load"):
        open_trusting(tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="failed to load"):
        open_trusting(tmp_path / "text.pt")
