"""Networks of the user's own, named as package.module:factory."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import from_factory, masks_of, open_checkpoint, set_masks
from trainscope.networks.guess_shape import guess_input_shape

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10, width=8):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, num_classes))

    def forward(self, x):
        return self.model(x)

class Shaped(Net):
    input_shape = (1, 12, 12)

class Branches(Net):
    def forward(self, x):
        return super().forward(x) if x.sum().item() < 1e9 else x

def fixed():
    return Net(7)

def fails():
    raise RuntimeError("no data at /nowhere\\nsecond line")

def wrong():
    return [1]

number = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "custom_net.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("custom_net", None)


def _saved(module, path="net.pt"):
    torch.save(module.state_dict(), path)
    return path


def test_the_working_directory_is_searched_and_the_path_put_back(package):
    before = list(sys.path)
    assert from_factory("custom_net:Net").model[5].out_features == 10
    assert from_factory("custom_net:Net", 3).model[5].out_features == 3
    assert from_factory("custom_net:fixed", 3).model[5].out_features == 7
    assert sys.path == before


@pytest.mark.parametrize("classes", [10, 4, 100])
def test_weights_and_classes_come_from_the_file(package, classes):
    torch.manual_seed(0)
    source = from_factory("custom_net:Net", classes).eval()
    network = open_checkpoint(_saved(source), model="custom_net:Net")
    assert network.num_classes == classes
    assert network.architecture == "custom_net:Net"
    assert network.recognised == "--model"
    assert network.notes == ("Its input shape was found by trying: 1x32x32.",)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(network.module(x), source(x))


def test_names_of_the_networks_own_are_kept_and_wrappers_taken_off(package):
    source = nn.DataParallel(from_factory("custom_net:Net"))
    assert next(iter(source.state_dict())) == "module.model.0.weight"
    network = open_checkpoint(_saved(source), model="custom_net:Net")
    assert torch.equal(network.module.model[0].weight, source.module.model[0].weight)


def test_a_narrower_file_is_rebuilt_by_shape(package):
    from_factory("custom_net:Net")
    narrow = sys.modules["custom_net"].Net(width=3).eval()
    network = open_checkpoint(_saved(narrow), model="custom_net:Net")
    assert network.module.model[0].out_channels == 3
    assert any("It is a pruned custom_net:Net" in note for note in network.notes)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(network.module(x), narrow(x))


def test_masks_are_kept(package):
    source = from_factory("custom_net:Net")
    mask = torch.zeros(8, 1, 3, 3, dtype=torch.bool)
    mask[::2] = True
    set_masks(source, {"model.0.weight": mask})
    network = open_checkpoint(_saved(source), model="custom_net:Net")
    assert torch.equal(masks_of(network.module)["model.0.weight"], mask)


@pytest.mark.parametrize(
    ("model", "options", "shape"),
    [
        ("Shaped", {}, (1, 12, 12)),
        ("Net", {"input_shape": (1, 9, 9)}, (1, 9, 9)),
        ("Branches", {}, (1, 32, 32)),
    ],
)
def test_the_input_shape_that_is_said_is_believed(package, model, options, shape):
    source = from_factory(f"custom_net:{model}")
    network = open_checkpoint(_saved(source), model=f"custom_net:{model}", **options)
    assert network.input_shape == shape


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 7, stride=2), nn.Flatten(), nn.LazyLinear(2)), (3, 64, 64)),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), (1, 28, 28)),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), (3, 32, 32)),
        (nn.Sequential(nn.Flatten(), nn.Linear(20, 2)), (1, 1, 20)),
    ],
    ids=["conv", "784", "3072", "20"],
)
def test_usual_input_shapes_are_found(module, shape):
    module(torch.zeros(2, *shape))  # gives the lazy layer its width
    assert guess_input_shape(module) == shape


def test_an_input_shape_that_is_not_to_be_found(package):
    with pytest.raises(CheckpointError, match=r"input_shape = \(C, H, W\)"):
        guess_input_shape(nn.Sequential(nn.Flatten(0), nn.Linear(7, 2)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("custom_net", "takes package.module:factory, and 'custom_net' is not that"),
        ("custom_net:", "takes package.module:factory"),
        ("custom_net.py:Net", "'custom_net.py' is a file: write custom_net:Net$"),
        ("./nets/own.py:Net", r"'\./nets/own\.py' is a file: write own:Net from nets$"),
        (".py:Net", "there is no module '.py' here|importing '.py' failed"),
        ("absent_net:Net", "there is no module 'absent_net' here"),
        ("custom_net:Absent", "module 'custom_net' has no 'Absent'"),
        ("custom_net:number", "'number' is not a function or class"),
        ("custom_net:fails", "failed: RuntimeError: no data at /nowhere$"),
        ("custom_net:wrong", "returned a list; it must return a torch.nn.Module"),
        ("broken_net:Net", "importing 'broken_net' failed: SyntaxError"),
    ],
)
def test_specs_that_do_not_work_are_one_sentence(package, spec, message):
    (package / "broken_net.py").write_text("def (:\n")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint("any.pt", model=spec)


def test_weights_of_another_network_are_told_the_first_mismatch(package):
    path = _saved(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Linear(8, 2)))
    with pytest.raises(CheckpointError, match=r"net.pt: the weights do not fit: 'model.0.weight'"):
        open_checkpoint(path, model="custom_net:Net")
