"""Networks that take and give trees of tensors, whole numbers among them."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trainscope.errors import ActionError, DataError
from trainscope.networks.cost import flops
from trainscope.networks.example import Example, as_example, tensors_of
from trainscope.networks.masks import masks_of
from trainscope.sparsify import Action, given_action, recalibrate_batch_norm, sparsify
from trainscope.sparsify.verify import check_outputs


@dataclass
class Tagged:
    logits: Tensor
    loss: Tensor | None = None


class Tagger(nn.Module):
    """Token ids and a mask to a dataclass, through an embedding, an LSTM and an MLP."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.wide = nn.Linear(8, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, tokens, attention=None, *, scale=1.0):
        assert not tokens.is_floating_point()
        states = self.lstm(self.embedding(tokens))[0]
        if attention is not None:
            states = states * attention.unsqueeze(-1)
        return Tagged(self.head(torch.relu(self.wide(states))) * scale)


TOKENS = torch.arange(15).view(3, 5) % 11
FORMS = {
    "tensor": TOKENS,
    "tuple": (TOKENS, torch.ones(3, 5)),
    "dictionary": {"tokens": TOKENS, "attention": torch.ones(3, 5), "scale": 2.0},
    "example": Example((TOKENS,), {"attention": torch.ones(3, 5)}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action", [Action("unstructured", 0.5), Action("2:4", scope="all")])
def test_token_ids_reach_the_network_as_whole_numbers(form, action):
    torch.manual_seed(0)
    network = Tagger().double()
    done = sparsify(network, action, FORMS[form])
    share = (done.module.wide.weight == 0).double().mean()
    assert share == 0.5
    assert "wide.weight" in masks_of(done.module)
    products = 5 * (4 * 8 * (8 + 8) + 80 + 30)
    assert flops(network, FORMS[form]) == products


@pytest.mark.parametrize("form", FORMS)
def test_hidden_units_between_linear_layers_are_cut_whatever_the_inputs(form):
    torch.manual_seed(0)
    network = Tagger().double().eval()
    done = sparsify(network, Action(ratio=0.5), FORMS[form])
    assert done.module.wide.out_features == 5
    assert done.record.meaning == "50 % of the hidden units of 1 MLP"
    example = as_example(FORMS[form])
    with torch.no_grad():
        network.wide.weight[list(done.removed["wide"])] = 0
        network.wide.bias[list(done.removed["wide"])] = 0
        difference = example.run(network).logits - example.run(done.module).logits
    assert difference.abs().max() < 1e-12
    given = given_action(network, done.module, FORMS[form])
    assert [layer.name for layer in given.record.layers] == ["wide"]


def test_a_random_shape_is_no_token_and_the_error_says_what_else_to_give():
    with pytest.raises(ActionError, match=r"inputs of shape 5 .*an example of its inputs"):
        sparsify(Tagger(), Action("unstructured", 0.5), (5,))
    with pytest.raises(ActionError, match=r"the example inputs 3x5 "):
        sparsify(Tagger(), Action("unstructured", 0.5), TOKENS.float())
    with pytest.raises(DataError, match="no tensor in it"):
        sparsify(Tagger(), Action("unstructured", 0.5), {"tokens": "abc"})


def test_an_example_is_not_touched_and_its_floats_take_the_networks_dtype():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2).double()

        def forward(self, parts):
            return [self.fc(parts["x"].add_(1)), {"n": parts["n"].add_(1)}]

    parts = {"x": torch.zeros(2, 4), "n": torch.zeros(2, dtype=torch.long)}
    outputs = tensors_of(as_example((parts,)).run(Writing()))
    assert outputs.keys() == {"[0]", "[1]['n']"}
    assert outputs["[0]"].dtype == torch.float64
    assert outputs["[1]['n']"].tolist() == [1, 1]
    assert not parts["x"].any()
    assert not parts["n"].any()
    assert Example((parts,)).size == 2


def test_outputs_are_compared_by_place():
    boxes = {"boxes": torch.zeros(7, 4), "loss": torch.zeros(())}
    check_outputs(boxes, {"boxes": torch.zeros(5, 4), "loss": torch.ones(())}, samples=2)
    for other in (
        {"boxes": torch.zeros(7, 4)},
        {"boxes": torch.zeros(7, 3), "loss": torch.zeros(())},
        {"boxes": torch.full((7, 4), torch.nan), "loss": torch.zeros(())},
    ):
        with pytest.raises(ActionError, match="outputs"):
            check_outputs(boxes, other, samples=2)
    with pytest.raises(ActionError, match="from logits 2x3 to logits 1x3"):
        check_outputs({"logits": torch.zeros(2, 3)}, {"logits": torch.zeros(1, 3)}, samples=2)


def test_batch_norms_are_recalibrated_on_batches_of_any_form():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 3)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, tokens, *, scale):
            return self.norm(self.embedding(tokens) * scale)

    torch.manual_seed(0)
    network = Normed()
    batch = {"tokens": torch.arange(8), "scale": torch.tensor(2.0)}
    got = recalibrate_batch_norm(network, [batch, batch]).norm.running_mean
    assert torch.allclose(got, 2 * network.embedding.weight[:8].mean(0))
