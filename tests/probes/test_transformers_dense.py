"""Two-layer transformers against dense float64 references, fused attention included."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainscope.data import ProbeData
from trainscope.networks.masks import set_masks
from trainscope.probes.gradient import Gradient
from trainscope.probes.hessian.products import MatrixProduct
from trainscope.probes.jacobian import Jacobian
from trainscope.probes.subject.evaluation import evaluation
from trainscope.probes.subject.parameters import measured
from trainscope.task import LanguageModelling

TIGHT = 1e-10
WORDS, WIDTH, LENGTH = 5, 4, 5
pytestmark = pytest.mark.usefixtures("one_thread")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 3), nn.Linear(3, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (
            part.view(n, t, 2, WIDTH // 2).transpose(1, 2)
            for part in self.qkv(self.first(x)).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Plain(nn.Module):
    """A transformer of torch's own layers, its embedding tied to its head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.place = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor) -> Any:
        x = self.embed(input_ids) + self.place(torch.arange(input_ids.shape[1]))
        return SimpleNamespace(logits=self.head(self.drop(self.blocks(x))))


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "plain":
        return Plain()
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 1, "use_cache": False}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=2, n_inner=3, **sizes
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=3,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=LENGTH,
        **sizes,
    )
    return transformers.LlamaForCausalLM(config)


class Reference:
    """Everything by brute force, in terms of one flat vector of weights."""

    def __init__(self, module: nn.Module, ids: Tensor, keep: dict[str, Tensor]) -> None:
        self.module, self.ids = module, ids
        self.named = {n: p.detach() for n, p in module.named_parameters()}
        kept = (keep.get(n, torch.ones_like(p).bool()) for n, p in self.named.items())
        self.keep = torch.cat([mask.flatten() for mask in kept])
        self.point = torch.cat([p.flatten() for p in self.named.values()])

    def logits(self, vector: Tensor) -> Tensor:
        pieces = vector.split([p.numel() for p in self.named.values()])
        weights = {
            n: piece.view(p.shape) for (n, p), piece in zip(self.named.items(), pieces, strict=True)
        }
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(self.module, weights, (), {"input_ids": self.ids}).logits

    def loss(self, vector: Tensor) -> Tensor:
        logits = self.logits(vector)[:, :-1]
        said = logits.log_softmax(-1).gather(-1, self.ids[:, 1:, None])
        return -said.mean()

    def gradient(self) -> Tensor:
        return torch.autograd.functional.jacobian(self.loss, self.point)[self.keep]

    def hessian(self) -> Tensor:
        return torch.autograd.functional.hessian(self.loss, self.point)[self.keep][:, self.keep]

    def ggn(self) -> Tensor:
        jacobian = torch.autograd.functional.jacobian(
            lambda v: self.logits(v)[:, :-1].reshape(-1, WORDS), self.point
        )[..., self.keep]
        p = self.logits(self.point)[:, :-1].reshape(-1, WORDS).softmax(1)
        middle = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        return torch.einsum("ncp,ncd,ndq->pq", jacobian, middle, jacobian) / len(p)

    def singular_values(self) -> Tensor:
        """Return those of d logits at the last token / d embedded tokens, [N, k]."""
        layer = next(m for m in self.module.modules() if isinstance(m, nn.Embedding))
        rows = []
        for one in self.ids:

            def last(embedded: Tensor, one: Tensor = one) -> Tensor:
                handle = layer.register_forward_hook(lambda *_: embedded.unsqueeze(0))
                try:
                    with sdpa_kernel(SDPBackend.MATH):
                        return self.module(input_ids=one.unsqueeze(0)).logits[0, -1]
                finally:
                    handle.remove()

            found = torch.autograd.functional.jacobian(last, layer.weight.detach()[one])
            rows.append(torch.linalg.svdvals(found.flatten(1)))
        return torch.stack(rows)


@pytest.fixture(params=["plain", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, ProbeData, Reference]:
    module = network(request.param).double().eval()
    ids = torch.randint(WORDS, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    name = next(n for n, p in module.named_parameters() if "norm" not in n and p.ndim == 2)
    name = [n for n, p in module.named_parameters() if p.ndim == 2 and n != name][-1]
    mask = torch.rand(module.get_parameter(name).shape) < 0.5
    set_masks(module, {name: mask})
    data = ProbeData("", batch={"input_ids": ids}, task=LanguageModelling(), batch_size=2)
    return module, data, Reference(module, ids, {name: mask})


def close(got: Any, expected: Tensor, tight: float = TIGHT) -> bool:
    one = torch.as_tensor(got, dtype=torch.float64)
    return float((one - expected).abs().max()) <= tight * max(1.0, float(expected.abs().max()))


def tightness(module: nn.Module) -> float:
    """The norms of a Llama are computed in float32, whatever its weights are."""
    return 1e-5 if "Llama" in type(module).__name__ else TIGHT


def test_gradient_and_jacobian(case: tuple[nn.Module, ProbeData, Reference]) -> None:
    module, data, reference = case
    found = Gradient().measure(module, data)
    assert found.status == "ok"
    assert close(found.value("norm"), reference.gradient().norm())
    assert close(found.value("loss"), reference.loss(reference.point))
    jacobian = Jacobian().measure(module, data)
    assert jacobian.notes["inputs"] == "the embeddings of the token ids"
    values = jacobian.arrays["singular_values"]
    assert close(values, reference.singular_values(), tightness(module))


def test_the_gradient_of_each_sequence(case: tuple[nn.Module, ProbeData, Reference]) -> None:
    """All in one pass, by rules and the CPU's fused attention; the reference has neither."""
    module, data, reference = case
    found = Gradient().measure(module, replace(data, batch_size=len(data)))
    assert found.notes["per-sample gradients"] == "layer rules"
    each = [Reference(module, one.unsqueeze(0), {}) for one in reference.ids]
    rows = torch.stack(
        [torch.autograd.functional.jacobian(one.loss, one.point)[reference.keep] for one in each]
    )
    tight = tightness(module)
    assert close(found.arrays["sample_norms"], rows.norm(dim=1), tight)
    assert close(found.value("norm"), rows.mean(0).norm(), tight)
    spread = (rows.square().sum() - 3 * rows.mean(0).square().sum()) / 2
    signal = rows.mean(0).square().sum() - spread / 3
    assert close(found.value("snr"), signal / spread, 10 * tight)


@pytest.mark.parametrize("ggn", [False, True])
def test_products(case: tuple[nn.Module, ProbeData, Reference], ggn: bool) -> None:
    module, data, reference = case
    matrix = reference.ggn() if ggn else reference.hessian()
    tight = tightness(module)
    with evaluation(module, data) as lent:
        weights = measured(lent.network).used_by(lent.losses(lent.outputs(lent.look), lent.look))
        product = MatrixProduct(lent, weights, ggn=ggn, keep=True)
        vector = torch.randn(product.size, dtype=torch.float64)
        assert product.size == int(reference.keep.sum())
        assert close(product(vector), matrix @ vector, tight)
        assert close(product(vector), matrix @ vector, tight)  # from the graph that was kept


def test_attention_is_fused_outside_of_the_probes() -> None:
    q = torch.randn(1, 2, 5, 2, dtype=torch.float64, requires_grad=True)
    out = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    (slope,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(slope.sum(), q)
