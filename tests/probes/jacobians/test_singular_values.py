"""Singular values of float32 matrices: what is computed from them is float64."""

from __future__ import annotations

import pytest
import torch

from trainscope.probes.jacobians import singular_values as singular


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 6, 3), (3, 4, 300), (1, 1, 50), (2, 3, 4)])
@pytest.mark.parametrize("block", [1, 2**20])
def test_matrices_of_single_precision_lose_nothing(
    shape: tuple[int, int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singular, "BLOCK_BYTES", block)
    count, classes, inputs = shape
    generator = torch.Generator().manual_seed(0)
    # Small integers times powers of two: exact in float32, and of a condition beyond it.
    rows = torch.randint(-3, 4, shape, generator=generator).float() + torch.eye(classes, inputs)
    matrices = rows * 2.0 ** -(8 * torch.arange(classes))[:, None]
    found = singular.singular_values(matrices)
    expected = torch.linalg.svdvals(matrices.double())
    assert found.dtype == torch.float64
    assert found.shape == (count, min(classes, inputs))
    assert torch.allclose(found, expected, rtol=1e-7, atol=1e-15 * float(expected.max()))


def test_a_product_keeps_its_rows_inner_products_and_singular_values() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3, 4, 50, generator=generator, dtype=torch.float64)
    head = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    head[2] = 0
    small = singular.squeezed(rows, head)
    whole = head @ rows
    assert small.shape == (3, 9, 4)
    assert torch.allclose(small @ small.mT, whole @ whole.mT, rtol=0, atol=1e-11)
    assert bool((small[:, 2] == 0).all())
    found = singular.singular_values(small, 9)
    assert torch.allclose(found, torch.linalg.svdvals(whole), rtol=0, atol=1e-11)
