"""All criteria on all structures: the ratio is reached, the seed decides, and no trace is left."""

import copy
import math
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import trainscope
from trainscope import criteria
from trainscope.data import given_data
from trainscope.errors import ActionError
from trainscope.networks.masks import masks_of, set_masks
from trainscope.records import ActionRecord
from trainscope.sparsify import Action, sparsify
from trainscope.sparsify.again import do_again
from trainscope.sparsify.blocks import _subject as block_subject
from trainscope.sparsify.coupled import coupled
from trainscope.sparsify.criteria.synflow import SynapticFlow
from trainscope.sparsify.heads import find_heads
from trainscope.sparsify.inner import exported, inner
from trainscope.task import Regression

SHAPE = (2, 8, 8)
WEIGHTS_ALONE = {"obs", "sparsegpt", "wanda", "lamp", "erk"}
FILTERS_ALONE = {"bn-scale", "fpgm"}
NEED_DATA = {"taylor", "taylor2", "fisher", "obd", "obs", "sparsegpt", "wanda", "snip", "grasp"}


class Net(nn.Module):
    """A residual block between two convolutions, with a dropout that must not draw."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inside = nn.Conv2d(8, 12, 3, padding=1)
        self.between = nn.BatchNorm2d(12)
        self.back = nn.Conv2d(12, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.back(torch.relu(self.between(self.inside(x))))
        return self.head(torch.relu(self.hidden(self.drop(x.mean((2, 3))))))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = Net()
    for module in (made.norm, made.between):
        nn.init.uniform_(module.weight, 0.5, 2.0)
        module.running_mean.normal_()
    return made.train()


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(1)
    return given_data(
        (
            (torch.randn(48, *SHAPE), torch.randint(4, (48,))),
            (torch.randn(8, *SHAPE), torch.randint(4, (8,))),
        )
    )


def done(network, data, name, structure="unstructured", **fields):
    if structure == "unstructured" or structure == "filter":
        fields = {"ratio": 0.6, **fields}
    fields = {"criterion_samples": 20, **fields}
    return sparsify(network, Action(structure, criterion=name, **fields), SHAPE, data=data)


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("name", sorted(set(criteria.CRITERIA) - FILTERS_ALONE))
def test_single_weights(network, data, name):
    found = done(network, data, name, scope="all")
    masks = masks_of(found.module)
    total = sum(p.numel() for p in found.module.parameters() if p.ndim > 1)
    gone = sum(int((~mask).sum()) for mask in masks.values())
    together = name in {"snip", "grasp", "synflow", "lamp"}
    if together or name == "erk":
        assert gone == math.ceil(0.6 * total)
    else:
        assert gone == sum(math.ceil(round(0.6 * m.numel(), 6)) for m in masks.values())
    assert found.record.global_ranking == together
    assert found.record.reached >= 0.6
    assert all(not found.module.get_parameter(n)[~mask].any() for n, mask in masks.items())
    if name == "wanda":
        for mask in masks.values():
            rows = (~mask).flatten(1).sum(1)
            assert rows.max() - rows.min() <= 1
    again = done(network, data, name, scope="all")
    assert same(found.module.state_dict(), again.module.state_dict())


@pytest.mark.parametrize("name", sorted(set(criteria.CRITERIA) - FILTERS_ALONE - {"erk"}))
def test_n_of_m(network, data, name):
    found = done(network, data, name, "2:4", scope="all")
    masks = masks_of(found.module)
    assert set(masks) == {f"{n}.weight" for n in ("inside", "back", "hidden", "head")}
    for mask in masks.values():
        groups = mask.movedim(1, -1).reshape(-1, 4)
        assert (groups.sum(1) == 2).all()


@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize("name", sorted(set(criteria.CRITERIA) - WEIGHTS_ALONE))
def test_filters(network, data, name, scope):
    if name == "bn-scale" and scope == "all":
        pytest.skip("the hidden layer has no batch norm")
    found = done(network, data, name, "filter", scope=scope)
    changed = {layer.name: (layer.before, layer.after) for layer in found.record.layers}
    assert changed["inside"] == (12, 4)
    assert found.record.reached >= 0.6
    if scope == "inner":
        again = done(network, data, name, "filter", scope=scope)
        assert same(found.module.state_dict(), again.module.state_dict())
    twin = copy.deepcopy(network)  # what was done needs no data to be done again
    do_again(twin, found, SHAPE)
    assert same(found.module.state_dict(), twin.state_dict())


@pytest.mark.parametrize("scope", ["inner", "all", "exported", "heads", "blocks"])
def test_statistics_are_laid_out_as_the_weights_are(network, scope):
    """So every weight of a coupled filter, a head or a block has the statistic of its own."""
    torch.manual_seed(0)
    example = torch.randn(2, *SHAPE)
    module = copy.deepcopy(network)
    if scope in ("heads", "blocks"):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        module, example = nn.TransformerEncoder(layer, 2), torch.randn(2, 5, 8)
    if scope == "heads":
        subjects = [each.subject for each in find_heads(module, example).candidates]
    elif scope == "blocks":
        subjects = [block_subject(module, f"layers.{place}") for place in range(2)]
    else:
        find = {"inner": inner, "all": coupled, "exported": exported}[scope]
        subjects = [each.subject for each in find(module, example).candidates]
    values = {name: p.detach() for name, p in module.named_parameters()}
    squares = {name: value**2 for name, value in values.items()}
    assert subjects
    for subject in subjects:
        assert torch.equal(subject.laid_out(values), subject.weight)
        assert torch.equal(subject.laid_out(squares), subject.weight**2)
    if scope == "all":
        together = next(each for each in subjects if len(each.parameters) > 1)
        assert set(together.parameters) == {"stem.weight", "back.weight"}


@pytest.mark.parametrize("name", sorted(criteria.CRITERIA))
def test_what_a_criterion_does_not_rank_is_refused_in_a_sentence(name):
    for structure, refused in (("filter", WEIGHTS_ALONE), ("unstructured", FILTERS_ALONE)):
        if name in refused:
            with pytest.raises(ActionError, match=f"^{name} ranks .*, not .*choose"):
                Action(structure, ratio=0.5, criterion=name)
        else:
            Action(structure, ratio=0.5, criterion=name)


@pytest.mark.parametrize("name", sorted(NEED_DATA))
def test_a_criterion_that_needs_data_is_refused_without(network, name):
    with pytest.raises(ActionError, match=f"the criterion {name} needs training samples .*--data"):
        done(network, None, name)


def test_the_others_need_none(network):
    for name in set(criteria.CRITERIA) - NEED_DATA:
        structure = "filter" if name in FILTERS_ALONE else "unstructured"
        assert done(network, None, name, structure).record.collected is None


def test_no_trace_is_left(network, data):
    network.stem.register_forward_hook(lambda *_: None)
    before, modes = state_of(network), [m.training for m in network.modules()]
    hooks = len(network.stem._forward_hooks)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    network.hidden.weight.requires_grad_(False)
    random = torch.get_rng_state()
    for name in ("sparsegpt", "obd", "fisher", "synflow", "grasp"):
        found = done(network, data, name)
        assert not found.module.hidden.weight.requires_grad
        assert found.module.head.weight.grad is None
    assert same(before, state_of(network))
    assert modes == [m.training for m in network.modules()]
    assert hooks == len(network.stem._forward_hooks)
    assert network.head.weight.grad.eq(1).all()
    assert torch.equal(random, torch.get_rng_state())
    network.hidden.weight.requires_grad_(True)
    network.head.weight.grad = None


def test_the_record_says_what_was_collected(network, data):
    record = done(network, data, "taylor2", seed=3).record
    assert record.collected.samples == 20
    assert record.collected.half == "train"
    assert record.collected.statistics == ("gradient", "Hessian times weights")
    assert record.collected.seed == 3
    assert ActionRecord.from_json(record.to_json()) == record
    assert done(network, data, "synflow").record.rounds == 100
    old = {k: v for k, v in record.to_json().items() if k not in ("collected", "rounds")}
    assert ActionRecord.from_json(old).collected is None
    assert "collected" not in done(network, data, "l1").record.to_json()


def test_the_seed_draws_the_samples(network, data):
    one, two = (done(network, data, "snip", seed=seed).module.state_dict() for seed in (0, 1))
    assert not same(one, two)
    whole = [
        done(network, data, "snip", seed=seed, criterion_samples=48).module.state_dict()
        for seed in (0, 1)
    ]
    assert same(*whole)


def test_without_a_training_half_the_note_says_whose_samples(network, data):
    found = done(network, given_data([data.test.batch(torch.arange(8))]), "snip")
    assert found.record.collected.half == "test"
    assert any("test samples" in note for note in found.notes)


@pytest.mark.parametrize("name", ["taylor", "wanda", "sparsegpt", "obs", "synflow", "lamp", "erk"])
def test_masks_that_were_there_stay(network, data, name):
    masked = copy.deepcopy(network)
    mask = torch.rand(masked.inside.weight.shape) > 0.3
    set_masks(masked, {"inside.weight": mask})
    found = done(masked, data, name, scope="all")
    assert not (masks_of(found.module)["inside.weight"] & ~mask).any()
    assert not found.module.inside.weight[~mask].any()
    assert found.record.reached >= 0.6


def test_what_torch_prune_computes_is_ranked_too(network, data):
    twin = copy.deepcopy(network)
    prune.l1_unstructured(twin.inside, "weight", 0.25)
    for name in ("snip", "sparsegpt", "synflow"):
        found = done(twin, data, name)
        assert float((found.module.inside.weight_mask == 0).float().mean()) >= 0.25
    assert done(twin, data, "taylor", "filter").record.layers[0].after == 4


def test_synflow_never_empties_a_layer_and_its_rounds_matter(network):
    found = done(network, None, "synflow", ratio=0.97, scope="all")
    assert all(mask.any() for mask in masks_of(found.module).values())
    once = done(network, None, SynapticFlow(rounds=1), ratio=0.97, scope="all")
    assert not same(found.module.state_dict(), once.module.state_dict())
    assert once.record.rounds == 1


def test_synflow_is_blind_to_a_change_of_scale_between_layers(network):
    """Magnitude is not: a layer times 8 and the next over 8 is the same function of the input."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.hidden.weight.mul_(8)
        twin.hidden.bias.mul_(8)
        twin.head.weight.div_(8)
    for name, blind in (("synflow", True), ("l1", False)):
        one, two = (
            masks_of(done(n, None, name, scope="all", global_ranking=True).module)
            for n in (network, twin)
        )
        assert same(one, two) == blind


class Largest:
    """A third party's: the other way round."""

    name = "largest"
    needs = frozenset({"weight", "gradient"})

    def score(self, subject, statistics):
        gradient = statistics.of("gradient", subject)
        assert gradient.shape == subject.weight.shape
        return -subject.total(subject.weight.double().square())


@pytest.mark.parametrize("structure", ["filter", "unstructured", "2:4"])
def test_a_criterion_of_somebodys_as_an_object(network, data, structure):
    found = done(network, data, Largest(), structure)
    assert found.record.criterion == "largest"
    assert found.record.collected.statistics == ("gradient",)
    if structure == "unstructured":
        left = found.module.inside.weight.detach().abs().sum()
        assert left < network.inside.weight.detach().abs().sum() * 0.4


def test_a_criterion_of_another_package_by_name(network, data, monkeypatch):
    point = EntryPoint("largest", f"{__name__}:Largest", "trainscope.criteria")
    broken = EntryPoint("broken", "nothing_here:Criterion", "trainscope.criteria")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Largest if self is point else 1 / 0)
    monkeypatch.setattr("trainscope.sparsify.criteria.entry_points", lambda group: (point, broken))
    assert done(network, data, "largest").record.criterion == "largest"
    with pytest.raises(ActionError, match=r"'broken' .* cannot be loaded"):
        criteria.find("broken")
    with pytest.raises(ActionError, match=r"choose from l1, .*, largest, broken"):
        criteria.find("smallest")


def test_a_criterion_of_ours_is_not_looked_for_in_other_packages(monkeypatch):
    monkeypatch.setattr("trainscope.sparsify.criteria.entry_points", lambda group: 1 / 0)
    for name in criteria.CRITERIA:
        assert criteria.find(name).name == name


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda *_: torch.zeros(3, 3), "not scores of shape"),
        (lambda *_: 1 / 0, "the criterion mine fails on .*ZeroDivisionError"),
        (lambda s, _: s.weight.new_full(s.weight.shape, torch.nan), "NaN"),
        (lambda *_: None, "returned NoneType"),
    ],
)
def test_faults_of_somebodys_criterion_are_said(network, made, says):
    mine = type("Mine", (), {"name": "mine", "needs": frozenset(), "score": lambda _, *a: made(*a)})
    with pytest.raises(ActionError, match=says):
        done(network, None, mine())


def test_what_is_no_criterion_is_refused():
    with pytest.raises(ActionError, match="give an object of it"):
        Action(ratio=0.5, criterion=Largest)
    with pytest.raises(ActionError, match="without name, needs, score"):
        Action(ratio=0.5, criterion=3)
    with pytest.raises(ActionError, match="needs 'sunshine', which is no statistic"):
        Action(ratio=0.5, criterion=type("A", (Largest,), {"needs": {"sunshine"}})())


def test_options_that_a_criterion_cannot_have():
    with pytest.raises(ActionError, match="do not compare across layers"):
        Action("unstructured", ratio=0.5, criterion="wanda", global_ranking=True)
    with pytest.raises(ActionError, match="erk sets the ratio of every layer itself"):
        Action("unstructured", ratio=0.5, ratios={"a": 0.2}, criterion="erk")
    with pytest.raises(ActionError, match="erk sets the ratio of every layer itself"):
        Action("2:4", criterion="erk")
    with pytest.raises(ActionError, match="give at least 1"):
        Action(ratio=0.5, criterion="taylor", criterion_samples=0)
    with pytest.raises(ActionError, match="rounds is 0"):
        SynapticFlow(rounds=0)


def test_ratios_by_pattern_hold_in_each_layer(network, data):
    found = done(network, data, "snip", ratios={"back": 0.25})
    assert not found.record.global_ranking
    assert {c.name: c.after / c.before for c in found.record.layers}["back"] == 0.75


def test_a_layer_whose_inputs_cannot_be_seen_is_left_alone_and_named(data):
    torch.manual_seed(0)

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = nn.GRU(16, 8, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.recurrent(x.flatten(1, 2))[0].mean(1))

    sequences = given_data(
        (
            (torch.randn(16, 2, 4, 16), torch.randint(4, (16,))),
            (torch.randn(4, 2, 4, 16), torch.randint(4, (4,))),
        )
    )
    action = Action("unstructured", ratio=0.5, criterion="wanda", scope="all")
    found = sparsify(Tagger(), action, (2, 4, 16), data=sequences)
    assert [layer.name for layer in found.record.layers] == ["head"]
    assert any("inputs cannot be seen" in note for note in found.notes)
    ranked = sparsify(
        Tagger(), Action("unstructured", ratio=0.5, criterion="taylor", scope="all"), (2, 4, 16),
        data=sequences,
    )  # fmt: skip
    assert len(ranked.record.layers) == 3


def test_any_task(network, data):
    values = given_data(
        (
            (torch.randn(16, *SHAPE), torch.randn(16, 4)),
            (torch.randn(4, *SHAPE), torch.randn(4, 4)),
        ),
        task=Regression(),
    )
    for name in ("taylor", "obd", "fisher", "wanda", "grasp"):
        assert done(network, values, name).record.collected.samples == 16


def test_through_a_diagnosis_and_from_its_words(network, data):
    action = trainscope.Action("unstructured", ratio=0.5, criterion="wanda", criterion_samples=12)
    pair = tuple(half.batch(torch.arange(len(half))) for half in (data.train, data.test))
    diagnosis = trainscope.diagnose(network, action=action, data=pair, probes=["gradient"])
    assert diagnosis.action.collected.samples == 12
    assert any("12 training samples" in note for note in diagnosis.notes)
    with pytest.raises(ActionError, match="needs training samples"):
        trainscope.diagnose(network, action=action, data="random:2x8x8", probes=["gradient"])
