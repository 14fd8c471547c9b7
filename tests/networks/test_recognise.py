"""Architectures found by the names and shapes of tensors alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from trainscope.errors import CheckpointError
from trainscope.networks import open_checkpoint, registry
from trainscope.networks.meta import shapes_of
from trainscope.networks.recognise import recognise


def _shapes(name, classes=7):
    return shapes_of(registry.architecture(name).skeleton(classes).state_dict())


@pytest.mark.parametrize("name", registry.names())
def test_every_dense_network_is_recognised_with_its_classes_and_no_other(name):
    match = recognise(_shapes(name))
    assert match.fit.architecture.name == name
    assert match.fit.num_classes == 7
    assert match.fit.exact
    assert match.also == ()


def test_auxiliary_heads_may_be_there():
    found = _shapes("googlenet") | {"aux1.fc1.weight": (1024, 2048), "aux2.fc2.bias": (7,)}
    fit = recognise(found).fit
    assert fit.exact
    assert "aux1.fc1.weight" not in fit.found


def test_counters_that_old_files_lack_are_no_difference():
    found = {n: s for n, s in _shapes("resnet18").items() if "num_batches_tracked" not in n}
    assert recognise(found).fit.exact


def test_gray_images_are_seen_in_the_first_convolution():
    found = _shapes("resnet18") | {"conv1.weight": (64, 1, 7, 7)}
    fit = recognise(found).fit
    assert fit.exact
    assert fit.architecture.input_shape == (1, 224, 224)


@pytest.mark.parametrize(("name", "side"), [("vit_b_16", 24), ("vit_b_32", 3), ("vit_h_14", 37)])
def test_a_vit_at_another_resolution_is_seen_in_its_positions(name, side):
    found = _shapes(name)
    width = found["class_token"][-1]
    fit = recognise(found | {"encoder.pos_embedding": (1, side**2 + 1, width)}).fit
    assert fit.exact
    assert fit.architecture.name == name
    size = side * int(name.rpartition("_")[2])
    assert fit.architecture.input_shape == (3, size, size)


def test_narrower_tensors_are_a_pruned_network_the_smallest_they_fit():
    found = dict(_shapes("resnet50"))
    found["layer1.0.conv1.weight"] = (13, 64, 1, 1)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        found[f"layer1.0.bn1.{leaf}"] = (13,)
    found["layer1.0.conv2.weight"] = (64, 13, 3, 3)
    match = recognise(found)
    assert match.fit.architecture.name == "resnet50"
    assert match.fit.narrower
    assert not match.fit.exact
    assert match.also == ("wide_resnet50_2",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.weight": (64, 3, 3, 3)}, "'conv1.weight' is 64x3x3x3 in the file"),
        ({"layer9.weight": (3,)}, "the file has 'layer9.weight', which resnet18 does not have"),
        ({"bn1.weight": (65,)}, "'bn1.weight' is 65 in the file and 64 in resnet18"),
    ],
)
def test_what_fits_nothing_is_told_the_nearest_and_the_difference(change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        recognise(_shapes("resnet18") | change)
    assert "--arch" in str(caught.value)


def test_a_missing_tensor_is_named():
    found = _shapes("resnet18")
    del found["layer2.0.bn1.bias"]
    with pytest.raises(CheckpointError, match=r"'layer2.0.bn1.bias'.* is missing from the file"):
        recognise(found)


@pytest.mark.parametrize("found", [{"a.weight": (3, 3)}, {"fc.weight": ()}])
def test_names_of_no_family_are_told_what_to_say(found):
    with pytest.raises(CheckpointError, match=r"no known architecture.*--arch NAME or --model"):
        recognise(found)


@pytest.mark.parametrize("shape", [(), (0,), (0, 512), (7,), (7, 512, 1, 1), (10**9, 512)], ids=str)
def test_absurd_shapes_end_in_an_error_and_no_memory_is_taken(shape):
    found = _shapes("resnet18") | {"fc.weight": shape, "layer1.0.conv1.weight": shape}
    with pytest.raises(CheckpointError, match="no known architecture fits"):
        recognise(found)


def test_small_networks_are_opened_and_trained_without_what_takes_seconds_to_import():
    code = (
        "import sys; from trainscope.networks import registry, recognise, flops;"
        "from trainscope.networks.meta import shapes_of;"
        "from trainscope.data import load;"
        "from trainscope.training.loop import Settings, Stepper, train;"
        "from trainscope.training.schedule import constant;"
        "registry.build('resnet20'), registry.input_shape('lenet5');"
        "state = registry.build('digits_resnet').state_dict();"
        "fit = recognise.recognise(shapes_of(state)).fit;"
        "assert fit.exact;"
        "network = fit.network(state);"
        "assert flops(network, (1, 8, 8)) == 1631872;"
        "digits = load('digits', (1, 8, 8));"
        "kinds = [Settings(), Settings(optimizer='adamw')];"
        "[Stepper(network, each, 0.1).step(digits.train.batch(slice(0, 4))) for each in kinds];"
        "slow = {'torchvision', 'torch._dynamo', 'sklearn', 'scipy.stats'};"
        "sys.exit(', '.join(slow & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "linear" not in k},
            "; of a resnet20 'linear.weight' is missing",
        ),
        (
            lambda s: (
                {f"base_model.model.{k}": v for k, v in s.items()}
                | {"base_model.model.fc.lora_A.default.weight": torch.ones(2, 64)}
            ),
            r"LoRA adapters of peft's; call merge_and_unload\(\)",
        ),
        (
            lambda s: {f"params/{k.replace('.weight', '/kernel')}": v for k, v in s.items()},
            "names are those of Flax or Keras",
        ),
        (
            lambda s: s | {"conv1.weight_fake_quant.scale": torch.ones(16)},
            "it is a quantised network",
        ),
    ],
)
def test_tensors_of_no_known_network_are_told_for_what_they_are(tmp_path, change, told):
    torch.save(change(registry.build("resnet20").state_dict()), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=told):
        open_checkpoint(tmp_path / "net.pt")
