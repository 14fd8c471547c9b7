"""Files of several networks, and of one network in pieces: what is taken, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import build, open_checkpoint

IMAGES = torch.rand(3, 1, 28, 28)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return build("lenet5", 10).eval()


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    return build("resnet20", 10).eval()


def under(name: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def same(opened, module) -> bool:
    return torch.equal(opened.module(IMAGES), module(IMAGES))


FORMS = {
    "bare": lambda s, t: {**under("student", s), **under("teacher", t)},
    "lightning": lambda s, t: {
        "pytorch-lightning_version": "2.2.0",
        "state_dict": {**under("teacher", t), **under("student", s), "loss.w": torch.ones(3)},
    },
    "inside": lambda s, t: {
        "state_dict": {**under("model.student", s), **under("model.teacher", t)}
    },
    "keys": lambda s, t: {"teacher": t.state_dict(), "student": s.state_dict(), "epoch": 4},
    "wrapped": lambda s, t: {"model": {**under("module.student", s), **under("module.teacher", t)}},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_student_is_taken_and_the_teacher_can_be(tmp_path, student, teacher, form):
    path = tmp_path / "kd.pt"
    torch.save(FORMS[form](student, teacher), path)
    opened = open_checkpoint(path)
    assert same(opened, student)
    assert "teacher" in " ".join(opened.notes)
    assert same(open_checkpoint(path, arch="lenet5"), student)
    assert open_checkpoint(path, part="teacher").architecture == "resnet20"


def test_a_teacher_is_never_taken_for_a_student_that_is_not_known(tmp_path, teacher):
    unknown = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    path = tmp_path / "kd.pt"
    for name in ("student", "model"):
        torch.save({**under(name, unknown), **under("teacher", teacher)}, path)
        with pytest.raises(CheckpointError, match=rf"networks: teacher, {name}; .* --part NAME"):
            open_checkpoint(path)
    assert open_checkpoint(path, part="teacher").architecture == "resnet20"
    with pytest.raises(CheckpointError, match="its parts are: model, teacher"):
        open_checkpoint(path, part="pupil")


def test_two_networks_without_a_student_are_the_users_choice(tmp_path, student, teacher):
    path = tmp_path / "two.pt"
    torch.save({"a": student.state_dict(), "b": teacher.state_dict()}, path)
    with pytest.raises(CheckpointError, match="several networks: a, b; say which"):
        open_checkpoint(path)
    assert same(open_checkpoint(path, part="a"), student)


@pytest.mark.parametrize(
    "names",
    [
        ("backbone", "head"),
        ("backbone", "head.fc"),
        ("", "fc3.1"),
        ("encoder", "classifier"),
        ("features", "fc3"),
    ],
)
def test_a_head_of_its_own_is_the_classifier(tmp_path, student, names):
    body, head = names
    state = {}
    for name, value in student.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        where = head if layer == "fc3" else ".".join(filter(None, (body, layer)))
        state[f"{where}.{leaf}"] = value
    path = tmp_path / "headed.pt"
    torch.save(state, path)
    opened = open_checkpoint(path)
    assert same(opened, student)
    assert head == "fc3" or f"'{head}'" in " ".join(opened.notes)


def test_a_head_that_computes_more_is_refused(tmp_path, student):
    state = student.state_dict()
    head = nn.Sequential(nn.Linear(84, 20), nn.ReLU(), nn.Linear(20, 10))
    kept = {name: value for name, value in state.items() if not name.startswith("fc3")}
    torch.save({**kept, **under("fc3", head)}, tmp_path / "headed.pt")
    with pytest.raises(CheckpointError, match="--model"):
        open_checkpoint(tmp_path / "headed.pt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": None, "ema": state, "epoch": 3, "updates": 90},
        lambda state: {"epoch": 3, "state_dict_ema": state},
        lambda state: {"model_ema": state},
        lambda state: {"module": state, "ds_config": {}, "optimizer": None},
        lambda state: {"generator": state, "epoch": 3},
    ],
)
def test_weights_alone_under_any_key_are_found(tmp_path, student, wrap):
    torch.save(wrap(student.state_dict()), tmp_path / "c.pt")
    assert same(open_checkpoint(tmp_path / "c.pt"), student)


def test_a_whole_network_as_the_average_alone(tmp_path, student):
    torch.save({"model": None, "ema": student, "updates": 7}, tmp_path / "c.pt")
    assert same(open_checkpoint(tmp_path / "c.pt"), student)


def test_the_networks_of_an_ensemble_are_named(tmp_path, student):
    """It was said that no architecture has such names."""
    torch.manual_seed(2)
    other, path = build("lenet5", 10).eval(), tmp_path / "ensemble.pt"
    torch.save({**under("models.0", student), **under("models.1", other)}, path)
    with pytest.raises(CheckpointError, match=r"several networks: models\.0, models\.1; say which"):
        open_checkpoint(path)
    assert same(open_checkpoint(path, part="models.1"), other)
    assert same(open_checkpoint(path, part="models.0"), student)
