from __future__ import annotations

import sys

import pytest
import torch
from click.testing import CliRunner

from trainscope.cli.main import main
from trainscope.errors import CheckpointError
from trainscope.networks import build, open_checkpoint
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


def test_an_architecture_beside_the_files_own_is_refused(own):
    path, _ = own
    for name in ("--arch", "--model"):
        result = CliRunner().invoke(
            main, ["probe", str(path), "--ratio", "0.5", "--unsafe-load", name, "lenet5"]
        )
        assert result.exit_code == 2
        assert "leave --arch, --model and --part out" in result.stderr


def test_classes_are_looked_for_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "net_of_here.py").write_text(CODE)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        import net_of_here

        torch.save(net_of_here.Net(), tmp_path / "own.pt")
    sys.modules.pop("net_of_here")
    with pytest.raises(CheckpointError, match="No module named 'net_of_here'"):
        open_trusting(tmp_path / "own.pt")
    monkeypatch.chdir(tmp_path)
    assert open_trusting(tmp_path / "own.pt").num_classes == 5
    sys.modules.pop("net_of_here")


@pytest.mark.parametrize("command", ["retrain", "scratch"])
def test_training_commands_load_it_only_when_asked(tmp_path, monkeypatch, command):
    """On the digits, with a network of the user's own."""
    code = CODE.replace("8, 5)", "8, 10)").replace("super()", "self.input_shape = 1, 8, 8; super()")
    (tmp_path / "digits_net.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import digits_net

    torch.save(digits_net.Net(), tmp_path / "own.pt")
    first = {"retrain": ["retrain"], "scratch": ["scratch", "--like"]}[command]
    more = {"retrain": ["--ratio", "0.5"], "scratch": []}[command]
    words = [*first, str(tmp_path / "own.pt"), *more, "--recipe", "F1,1e-2", "--data", "digits"]
    words += ["--batch-size", "512", "--no-norms", "--output", str(tmp_path / "run")]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "--model" in refused.stderr
    result = CliRunner().invoke(main, [*words, "--unsafe-load"])
    assert result.exit_code == 0, result.output
    assert "running the file's own code, as asked: digits_net.Net" in result.stderr
    assert open_checkpoint(tmp_path / "run" / "checkpoint.pt", model="digits_net:Net")
    sys.modules.pop("digits_net")
