"""Each criterion against its authors' definition, computed anew and densely, in float64."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

from trainscope.data import ProbeData
from trainscope.errors import ActionError
from trainscope.records.action import CRITERIA as NAMES
from trainscope.sparsify.criteria import CRITERIA, LayerTarget, Statistic, find, scored
from trainscope.sparsify.criteria.erk import densities
from trainscope.sparsify.criteria.sparsegpt import SparseGPT
from trainscope.sparsify.statistics import Source, Statistics, Subject, Unit
from trainscope.sparsify.statistics.curvature import DRAWS, signs
from trainscope.task import FromLoss, Segmentation

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 6.0], [1.0, 1.0]])


def told(seed=0, **values):
    return Statistics(torch.Generator().manual_seed(seed), values)


def score(name, subject, statistics=None):
    return scored(find(name), subject, statistics or told())


def weights(values, **fields):
    return Subject("a", values, parameters=("a.weight",), unit=Unit.WEIGHTS, **fields)


def small():
    """Return a smooth network and samples, small enough for a dense Hessian, in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)
    )
    network = network.double().eval()
    network[1].running_mean.normal_()
    data = ProbeData("x", torch.randn(9, 1, 4, 4).double(), torch.arange(9) % 4, batch_size=4)
    return network, data


def collected(network, data, *needs):
    return Source((1, 4, 4), data).collect(network, frozenset(needs), "test")


def flat(network):
    names = [name for name, _ in network.named_parameters()]
    vector = torch.cat([p.detach().flatten() for p in network.parameters()])

    def parts(values):
        found, start = {}, 0
        for name, parameter in network.named_parameters():
            found[name] = values[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        return found

    return names, vector, parts


def loss_of(network, data):
    _, _, parts = flat(network)

    def loss(vector):
        return F.cross_entropy(functional_call(network, parts(vector), data.inputs), data.labels)

    return loss


def of_layer(network, layer, unit):
    weight = network.get_parameter(f"{layer}.weight").detach()
    if unit is Unit.WEIGHTS:
        return Subject(layer, weight, parameters=(f"{layer}.weight",), unit=unit)
    return Subject(layer, weight.flatten(1), parameters=(f"{layer}.weight",))


def test_the_registry_names_them():
    assert tuple(CRITERIA) == NAMES
    assert all(name == criterion.name for name, criterion in CRITERIA.items())
    with pytest.raises(ActionError, match="no criterion is named 'l9'"):
        find("l9")


def test_l1_is_the_mean_and_l2_the_root_mean_square():
    subject = Subject("a", WEIGHT)
    assert score("l1", subject).tolist() == [3.5, 3.0, 1.0]
    assert torch.equal(score("l2", subject), torch.tensor([12.5, 18.0, 1.0]).double().sqrt())
    for name in ("l1", "l2"):
        assert torch.equal(score(name, weights(WEIGHT)), WEIGHT.abs())


def test_random_depends_on_the_seed_and_on_nothing_else():
    subject, state = Subject("a", WEIGHT), torch.get_rng_state()
    one, same, other = (score("random", subject, told(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert score("random", weights(WEIGHT)).shape == WEIGHT.shape


def test_bn_scale_is_the_mean_of_the_scales_magnitudes():
    scales = (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-3.0, 0.0, 1.0]))
    assert score("bn-scale", Subject("a", WEIGHT, scales)).tolist() == [2.0, 1.0, 2.0]


def test_bn_scale_needs_a_batch_norm_and_whole_filters():
    with pytest.raises(ActionError, match="no batch norm with a scale directly follows a"):
        score("bn-scale", Subject("a", WEIGHT))
    with pytest.raises(ActionError, match="whole filters"):
        score("bn-scale", weights(WEIGHT))


def test_fpgm_is_the_sum_of_distances_to_the_other_filters():
    rows = [[3.0, -4.0], [0.0, 6.0], [1.0, 1.0]]
    expected = [sum(math.dist(one, two) for two in rows) for one in rows]
    assert score("fpgm", Subject("a", WEIGHT)).tolist() == pytest.approx(expected, rel=1e-14)
    moved = WEIGHT + torch.tensor([5.0, -2.0])  # it is the middle that counts, and not the origin
    assert torch.allclose(score("fpgm", Subject("a", moved)), score("fpgm", Subject("a", WEIGHT)))


@pytest.mark.parametrize("unit", [Unit.WEIGHTS, Unit.FILTERS])
@pytest.mark.parametrize("layer", ["0", "4"])
def test_the_first_derivative_criteria(layer, unit):
    network, data = small()
    _, vector, parts = flat(network)
    gradient = parts(jacrev(loss_of(network, data))(vector))[f"{layer}.weight"]
    w = network.get_parameter(f"{layer}.weight").detach()
    subject = of_layer(network, layer, unit)
    statistics = collected(network, data, Statistic.GRADIENT)

    def summed(values):
        return values if unit is Unit.WEIGHTS else values.flatten(1).sum(1)

    assert torch.allclose(score("taylor", subject, statistics), summed(gradient * w) ** 2)
    assert torch.allclose(score("snip", subject, statistics), summed((gradient * w).abs()))


@pytest.mark.parametrize("unit", [Unit.WEIGHTS, Unit.FILTERS])
def test_the_second_derivative_criteria(unit):
    network, data = small()
    names, vector, parts = flat(network)
    matrix = jacrev(jacrev(loss_of(network, data)))(vector)
    gradient = jacrev(loss_of(network, data))(vector)
    needs = (Statistic.GRADIENT, Statistic.HESSIAN_WEIGHT, Statistic.HESSIAN_GRADIENT)
    statistics = collected(network, data, *needs, Statistic.HESSIAN_DIAGONAL)
    which = torch.cat(
        [
            torch.full_like(p.flatten(), name in ("0.weight", "4.weight"))
            for name, p in network.named_parameters()
        ]
    ).bool()
    second = vector * gradient - vector * (matrix @ vector) / 2
    of_weights = torch.where(which, gradient, 0.0)
    expected = {
        "taylor2": second,
        "grasp": vector * torch.where(which, matrix @ of_weights, 0.0),
    }
    draws = [signs(parts(vector), {}, k) for k in range(DRAWS)]
    drawn = [torch.cat([draw[name].flatten() for name in names]) for draw in draws]
    diagonal = torch.stack([z * (matrix @ z) for z in drawn]).mean(0)
    expected["obd"] = vector**2 * diagonal / 2
    for name, values in expected.items():
        for layer in ("0", "4"):
            right = parts(values)[f"{layer}.weight"]
            right = right if unit is Unit.WEIGHTS else right.flatten(1).sum(1)
            right = right**2 if name == "taylor2" else right
            got = score(name, of_layer(network, layer, unit), statistics)
            assert torch.allclose(got, right, rtol=1e-9, atol=1e-15), name


def test_the_diagonal_of_obd_is_the_hessians_within_its_noise():
    network, data = small()
    _, vector, _ = flat(network)
    matrix = jacrev(jacrev(loss_of(network, data)))(vector)
    found = collected(network, data, Statistic.HESSIAN_DIAGONAL).values[Statistic.HESSIAN_DIAGONAL]
    got = torch.cat([found[name].flatten() for name, _ in network.named_parameters()])
    noise = ((matrix**2).sum(1) - matrix.diagonal() ** 2).sqrt() / DRAWS**0.5
    assert ((got - matrix.diagonal()).abs() <= 5 * noise + 1e-12).all()


def test_fisher_is_the_mean_of_the_samples_squared_gradients():
    network, data = small()
    _, vector, parts = flat(network)

    def losses(v):
        outputs = functional_call(network, parts(v), data.inputs)
        return F.cross_entropy(outputs, data.labels, reduction="none")

    squares = jacrev(losses)(vector).square().mean(0)
    statistics = collected(network, data, Statistic.SQUARED_GRADIENT)
    for layer in ("0", "4"):
        w = network.get_parameter(f"{layer}.weight").detach()
        right = w**2 * parts(squares)[f"{layer}.weight"] / 2
        got = score("fisher", of_layer(network, layer, Unit.WEIGHTS), statistics)
        assert torch.allclose(got, right)
        got = score("fisher", of_layer(network, layer, Unit.FILTERS), statistics)
        assert torch.allclose(got, right.flatten(1).sum(1))


def test_a_samples_loss_is_weighed_by_its_terms():
    """Segmentation and text have many terms a sample, and ignore some of them."""
    torch.manual_seed(1)
    network = nn.Conv2d(1, 3, 1).double()
    labels = torch.randint(3, (5, 2, 2))
    labels[0, 0], labels[3] = 255, 255
    task = Segmentation(ignore=255)
    inputs = torch.randn(5, 1, 2, 2).double()
    data = ProbeData("x", batch=(inputs, labels), task=task, batch_size=2)

    def losses(w):
        logits = F.conv2d(inputs, w, network.bias.detach())
        each = F.cross_entropy(logits, labels, reduction="none", ignore_index=255)
        return each.flatten(1).sum(1) * 5 / (labels != 255).sum()

    w = network.weight.detach()
    rows = jacrev(losses)(w)
    found = Source((1, 2, 2), data).collect(
        network, {Statistic.GRADIENT, Statistic.SQUARED_GRADIENT}, "test"
    )
    assert torch.allclose(found.values[Statistic.GRADIENT]["weight"], rows.mean(0))
    squared = found.values[Statistic.SQUARED_GRADIENT]["weight"]
    assert torch.allclose(squared, rows.square().mean(0))


def test_a_loss_of_ones_own_is_that_of_training():
    torch.manual_seed(1)
    network = nn.Linear(3, 1).double()
    inputs, targets = torch.randn(6, 3).double(), torch.randn(6, 1).double()
    task = FromLoss(lambda out, target: (out - target).abs().mean())
    data = ProbeData("x", batch=(inputs, targets), task=task, batch_size=6)
    found = Source((3,), data).collect(network, {Statistic.GRADIENT}, "test")
    right = jacrev(lambda w: (F.linear(inputs, w, network.bias) - targets).abs().mean())(
        network.weight.detach()
    )
    assert torch.allclose(found.values[Statistic.GRADIENT]["weight"], right.detach())


CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, padding=1, stride=2),
    nn.Conv2d(4, 6, (3, 2), padding=(2, 0), dilation=(2, 1), padding_mode="circular"),
    nn.Conv2d(4, 6, 3, groups=2, padding="same"),
    nn.Conv1d(4, 6, 3, groups=4 // 2),
    nn.Conv3d(4, 2, 2),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=range(5))
def test_the_inputs_of_a_convolution_are_what_it_multiplies(layer):
    """The squared norm of a convolution's outputs is w G w, summed over its filters."""
    torch.manual_seed(2)
    layer = layer.double()
    with torch.no_grad():
        layer.bias.zero_()
    shape = (4, *(6 for _ in layer.kernel_size))
    inputs = torch.randn(3, *shape).double()
    network = nn.Sequential(layer)
    data = ProbeData("x", inputs, torch.zeros(3, dtype=torch.int64), batch_size=2)
    needs = {Statistic.INPUT_GRAM, Statistic.INPUT_NORM}
    found = Source(shape, data).collect(network, needs, "test")
    gram = found.values[Statistic.INPUT_GRAM]["0.weight"]
    rows = layer.weight.detach().flatten(1).unflatten(0, (layer.groups, -1))
    got = torch.einsum("gok,gkl,gol->go", rows, gram, rows).flatten()
    outputs = layer(inputs).detach().transpose(0, 1).flatten(1)
    assert torch.allclose(got, outputs.square().sum(1))
    norms = found.values[Statistic.INPUT_NORM]["0.weight"]
    assert torch.allclose(norms, gram.diagonal(dim1=1, dim2=2).sqrt())


@pytest.mark.parametrize("lengths", [(5, 5), (5, 3)])
def test_the_packed_projections_of_attention_have_inputs_each(lengths):
    torch.manual_seed(2)

    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            queries, keys = x[:, : lengths[0]], x[:, -lengths[1] :]
            return self.attention(queries, keys, value=keys * 2)[0].mean(1)

    network, x = Crossed().double(), torch.randn(3, 7, 4).double()
    data = ProbeData("x", x, torch.zeros(3, dtype=torch.int64), batch_size=2)
    found = Source((7, 4), data).collect(network, {Statistic.INPUT_GRAM}, "test")
    gram = found.values[Statistic.INPUT_GRAM]["attention.in_proj_weight"]
    queries, keys = x[:, : lengths[0]].reshape(-1, 4), x[:, -lengths[1] :].reshape(-1, 4)
    right = torch.stack([queries.T @ queries, keys.T @ keys, 4 * keys.T @ keys])
    assert torch.allclose(gram, right)


def test_wanda_is_the_weight_times_its_inputs_norm():
    torch.manual_seed(0)
    network, x = nn.Linear(5, 3).double(), torch.randn(7, 2, 5).double()
    data = ProbeData("x", x, torch.zeros(7, dtype=torch.int64), batch_size=3)
    found = Source((2, 5), data).collect(network, {Statistic.INPUT_NORM}, "wanda")
    subject = Subject("a", network.weight.detach(), parameters=("weight",), unit=Unit.WEIGHTS)
    right = network.weight.detach().abs() * x.reshape(-1, 5).norm(dim=0)
    assert torch.allclose(score("wanda", subject, found), right)


def layer_case(width=10, rows=4, seed=3):
    torch.manual_seed(seed)
    inputs = torch.randn(40, width).double() @ torch.randn(width, width).double()
    weight = torch.randn(rows, width).double()
    gram = inputs.T @ inputs
    return inputs, weight, told(**{Statistic.INPUT_GRAM: {"a.weight": gram[None]}}), gram


def damp(gram):
    return gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram)).double()


def test_obs_has_its_authors_saliency_and_the_least_squares_optimum():
    _, weight, statistics, gram = layer_case()
    subject, h = weights(weight), damp(gram)
    saliency = weight**2 / (2 * torch.linalg.inv(h).diagonal())
    assert torch.allclose(score("obs", subject, statistics), saliency)
    mask = saliency > saliency.flatten().median()
    found = find("obs").repair(subject, LayerTarget(mask, 0.5), statistics)
    root = torch.linalg.cholesky(h).T  # |root (w - v)|^2 is the layer's quadratic error
    for row, kept, got in zip(weight, mask, found.weight, strict=True):
        best = torch.linalg.lstsq(root[:, kept], root @ row).solution
        assert torch.allclose(got[kept], best, rtol=1e-8)
        assert not got[~kept].any()


def test_weights_of_inputs_that_are_always_zero_go_first():
    _, weight, _, gram = layer_case()
    gram[2] = gram[:, 2] = 0.0
    statistics = told(**{Statistic.INPUT_GRAM: {"a.weight": gram[None]}})
    assert not score("obs", weights(weight), statistics)[:, 2].any()
    asked = LayerTarget(torch.ones_like(weight, dtype=torch.bool), 0.1)
    found = SparseGPT().repair(weights(weight), asked, statistics)
    assert not found.mask[:, 2].any()
    assert found.mask[:, :2].all()


def sequential(weight, mask, h):
    """Return what SparseGPT makes of a mask: column by column, with dense inverses."""
    found = weight.clone()
    for row, kept in zip(found, mask, strict=True):
        for j in range(len(row)):
            if not kept[j]:
                inverse = torch.linalg.inv(h[j:, j:])
                row[j:] -= row[j] / inverse[0, 0] * inverse[0]
                row[j] = 0.0
    return found


@pytest.mark.parametrize("block", [3, 4, 128])
def test_sparsegpt_repairs_what_follows_and_chooses_block_by_block(block):
    _, weight, statistics, gram = layer_case()
    h, asked = damp(gram), LayerTarget(torch.ones_like(weight, dtype=torch.bool), 0.5)
    found = SparseGPT(block).repair(weights(weight), asked, statistics)
    assert torch.allclose(found.weight, sequential(weight, found.mask, h), rtol=1e-8, atol=1e-10)
    assert int((~found.mask).sum()) == weight.numel() // 2
    mask, done = torch.ones_like(found.mask), 0
    for start in range(0, 10, block):  # the mask, chosen from the weights as they are by then
        stop = min(start + block, 10)
        now = sequential(weight, mask, h)
        inverse = [torch.linalg.inv(h[j:, j:])[0, 0] for j in range(start, stop)]
        scores = now[:, start:stop] ** 2 / torch.stack(inverse)
        count = int(0.5 * 4 * stop) - done
        done += count
        limit = scores.flatten().sort().values[count - 1]
        mask[:, start:stop] = scores > limit
    assert torch.equal(mask, found.mask)


def test_sparsegpt_holds_n_of_m_along_the_inputs_and_loses_less_than_without_repair():
    torch.manual_seed(4)
    layer = nn.Conv2d(4, 6, 3, padding=1).double()
    inputs = torch.randn(8, 4, 5, 5).double().cumsum(1)
    data = ProbeData("x", inputs, torch.zeros(8, dtype=torch.int64))
    statistics = Source((4, 5, 5), data).collect(
        nn.Sequential(layer), {Statistic.INPUT_GRAM}, "sparsegpt"
    )
    weight = layer.weight.detach()
    subject = Subject("0", weight, parameters=("0.weight",), unit=Unit.WEIGHTS)
    asked = LayerTarget(torch.ones_like(weight, dtype=torch.bool), 0.5, (2, 4))
    found = find("sparsegpt").repair(subject, asked, statistics)
    assert (found.mask.sum(1) == 2).all()

    def error(values):
        return (F.conv2d(inputs, values - weight, padding=1) ** 2).sum()

    assert error(found.weight) < error(weight * found.mask)
    best = find("obs").repair(subject, replace(asked, mask=found.mask), statistics)
    assert error(best.weight) < error(found.weight) * (1 + 1e-9)


def test_repair_keeps_what_was_masked_before():
    _, weight, statistics, _ = layer_case()
    held = torch.ones_like(weight, dtype=torch.bool)
    held[0, 7:] = held[2, :2] = False
    subject = replace(weights(weight * held), mask=held)
    found = SparseGPT(4).repair(subject, LayerTarget(held, 0.5), statistics)
    assert not found.mask[~held].any()
    assert not found.weight[~found.mask].any()


def chain(bias=True):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 3, 3, bias=bias),
        nn.ReLU6(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 5, bias=bias),
    ).eval()  # fmt: skip


def test_synflow_is_the_derivative_of_the_network_of_magnitudes():
    network = chain().double()
    network[1].running_var.uniform_(0.5, 2.0)
    found = Source((1, 6, 6)).collect(network, {Statistic.FLOW}, "synflow")

    def flow(a, b, c):
        x = F.conv2d(torch.ones(2, 1, 6, 6).double(), a)
        x = x * (network[1].weight.abs() / (network[1].running_var + 1e-5).sqrt()).view(1, -1, 1, 1)
        return (F.conv2d(x, b).flatten(1) @ c.T).sum()

    names = ("0.weight", "3.weight", "7.weight")
    magnitudes = [network.get_parameter(name).detach().abs() for name in names]
    slopes = jacrev(flow, (0, 1, 2))(*magnitudes)
    for name, right in zip(names, slopes, strict=True):
        assert torch.allclose(found.values[Statistic.FLOW][name], right.detach())


def test_synflow_is_conserved():
    """What flows into a hidden unit flows out of it, and each layer's scores sum up to R."""
    network = chain()
    found = Source((1, 6, 6)).collect(network, {Statistic.FLOW}, "synflow")

    def layer(name):
        return score("synflow", of_layer(network, name, Unit.WEIGHTS), found)

    totals = [float(layer(name).sum()) for name in ("0", "3", "7")]
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-9)
    assert torch.allclose(layer("0").flatten(1).sum(1), layer("3").sum((0, 2, 3)))


def test_lamp_is_the_square_over_those_that_are_not_smaller():
    torch.manual_seed(6)
    values = torch.randn(4, 5)
    got = score("lamp", weights(values)).flatten()
    squares = values.double().square().flatten()
    right = [float(s / squares[squares >= s].sum()) for s in squares]
    assert got.tolist() == pytest.approx(right)
    assert got.max() == 1
    assert torch.equal(got.argsort(), values.abs().flatten().argsort())
    assert torch.allclose(score("lamp", weights(values * 7)), score("lamp", weights(values)))
    assert score("lamp", weights(torch.zeros(3, 2))).tolist() == [[0.0] * 2] * 3


def test_erk_gives_layers_a_share_by_their_shapes():
    shapes = [(16, 3, 3, 3), (64, 16, 3, 3), (64, 64, 3, 3), (10, 6)]
    kept = densities(shapes, 0.9)
    sizes = [math.prod(shape) for shape in shapes]
    assert sum(k * s for k, s in zip(kept, sizes, strict=True)) == pytest.approx(0.1 * sum(sizes))
    sparse = [k for k, share in enumerate(kept) if share < 1]
    scales = [kept[k] * sizes[k] / sum(shapes[k]) for k in sparse]
    assert scales == pytest.approx([scales[0]] * len(scales))
    assert len(sparse) < len(shapes)  # the smallest would get more than all of its weights
    assert kept[3] == 1.0
    for ratio in (0.001, 0.5, 0.9, 0.99, 0.9999):
        counts = find("erk").counts(shapes, ratio)
        most = sum(sizes) - len(sizes)
        assert sum(counts) == min(math.ceil(round(ratio * sum(sizes), 6)), most)
        assert all(0 <= count < size for count, size in zip(counts, sizes, strict=True))
