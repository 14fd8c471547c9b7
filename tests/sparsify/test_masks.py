import torch
from reference.zeroed import PlainNet

from trainscope.sparsify import Action, hold_masks, masks_of, sparsify


def test_masks_hold_through_momentum_and_weight_decay():
    torch.manual_seed(0)
    network = sparsify(PlainNet(), Action("unstructured", 0.8, scope="all"), (3, 8, 8)).module
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    inputs = torch.randn(4, 3, 8, 8)

    def step():
        optimizer.zero_grad()
        network.train()(inputs).square().mean().backward()
        optimizer.step()
        weights = dict(network.named_parameters())
        return sum(int(weights[name][~mask].any()) for name, mask in masks_of(network).items())

    handle = hold_masks(network, optimizer)
    assert [step() for _ in range(3)] == [0, 0, 0]
    handle.remove()
    assert step() > 0
