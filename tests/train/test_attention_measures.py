"""Measures of attention against the reference's numbers, the paper's table, and themselves computed in pieces."""

from __future__ import annotations

import math

import golden
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from edgeunip.train.attention import measures
from edgeunip.train.attention.measures import attention_distance, fourier_profile, frequencies, nmi, row_entropy

CASES = ["random_small", "random_14x14", "patterns_14x14", "wide_15x20"]


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    return golden.load("nmi")


@pytest.mark.parametrize("case", CASES)
def test_u1_reference_vectors(vectors: dict[str, np.ndarray], case: str) -> None:
    """U1, on random and structured attention, square and wide grids; CLS dropped."""
    attention = torch.from_numpy(vectors[f"{case}/attention"])
    rows, columns = vectors[f"{case}/grid"].tolist()
    found = nmi(attention).mean(1)
    np.testing.assert_allclose(found, vectors[f"{case}/nmi_head"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.mean(1), vectors[f"{case}/nmi"], atol=1e-6, rtol=0)
    distance = attention_distance(attention, (rows, columns), patch=16).mean(1)
    np.testing.assert_allclose(distance, vectors[f"{case}/distance_head"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(distance.mean(1), vectors[f"{case}/distance"], atol=1e-4, rtol=0)


def gaussian(sigma: float, grid: tuple[int, int] = (14, 14)) -> Tensor:
    """Attention that falls off with the distance from the query, sigma in patches."""
    logits = -((measures.distances(grid, 1) / sigma) ** 2) / 2
    return logits.softmax(-1)


TABLE = [(1, 0.499, 18), (2, 0.275, 37), (3, 0.160, 53), (4, 0.0905, 67), (6, 0.029, 88)]


@pytest.mark.parametrize(("sigma", "expected", "pixels"), TABLE)
def test_u1_table_of_gaussians(sigma: float, expected: float, pixels: int) -> None:
    attention = gaussian(sigma)
    assert float(nmi(attention, prefix=0)) == pytest.approx(expected, abs=5e-4)
    assert float(attention_distance(attention, (14, 14), patch=16, prefix=0)) == pytest.approx(pixels, abs=0.5)


def double_sum(attention: Tensor) -> float:
    """NMI as the definition writes it, in float64."""
    joint = attention.double().numpy() / len(attention)
    of_key = joint.sum(0)
    information = (joint * np.log(joint / (of_key / len(joint)))).sum()
    return float(information / np.sqrt(np.log(len(joint)) * -(of_key * np.log(of_key)).sum()))


@pytest.mark.parametrize("width", [1.3, 1.5, 2.0])
def test_u1_local_fifth_and_shared_foreground(width: float) -> None:
    """The table's mixture: 0.2 of a local pattern and 0.8 of one foreground for all, what s = 0.09 reads as."""
    foreground = gaussian(width)[7 * 14 + 7].expand(196, 196)
    mixture = 0.2 * gaussian(1) + 0.8 * foreground
    found = float(nmi(mixture, prefix=0))
    assert 0.065 < found < 0.095
    assert found == pytest.approx(double_sum(mixture + 1e-8), abs=1e-6)


def test_u1_identity_and_uniform() -> None:
    identity, uniform = torch.eye(196), torch.full((196, 196), 1 / 196)
    found = nmi(torch.stack([identity, uniform]), prefix=0)
    assert float(found[0]) == pytest.approx(1, abs=1e-5)  # the added 1e-8 keeps it from 1
    assert float(found[1]) == pytest.approx(0, abs=1e-6)
    assert float(attention_distance(identity, (14, 14), patch=16, prefix=0)) == pytest.approx(0, abs=1e-9)
    even = measures.even((14, 14), 16)
    assert float(attention_distance(uniform, (14, 14), patch=16, prefix=0)) == pytest.approx(even.distance_px, rel=1e-6)
    assert float(row_entropy(uniform, prefix=0)) == pytest.approx(even.entropy, abs=1e-5) == math.log(196)
    assert float(row_entropy(identity, prefix=0)) == pytest.approx(0, abs=1e-4)


def test_any_map_that_does_not_depend_on_the_query_has_no_nmi() -> None:
    row = torch.rand(196, generator=torch.Generator().manual_seed(0)).softmax(0)
    assert float(nmi(row.expand(196, 196), prefix=0)) == pytest.approx(0, abs=1e-6)
    one_key = torch.zeros(16, 16)
    one_key[:, 3] = 1
    assert float(nmi(one_key, prefix=0)) == pytest.approx(0, abs=1e-4)


def test_attention_that_is_all_on_cls_counts_patches_alike() -> None:
    attention = torch.zeros(17, 17)
    attention[:, 0] = 1
    assert float(nmi(attention)) == pytest.approx(0, abs=1e-6)
    found = attention_distance(attention, (4, 4), patch=16)
    assert float(found) == pytest.approx(measures.even((4, 4), 16).distance_px, rel=1e-5)


def test_nan_is_not_taken_for_zero() -> None:
    attention = gaussian(1)
    attention[3] = float("nan")
    assert nmi(attention, prefix=0).isnan()


def test_one_patch() -> None:
    query, key = torch.randn(2, 3, 2, 4), torch.randn(2, 3, 2, 4)
    found = measures.measure(query, key, (1, 1), patch=16)
    for values in (found.nmi, found.distance):
        torch.testing.assert_close(values, torch.zeros(2, 3, dtype=torch.float64))


def attention_of(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2)).softmax(-1)


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 7)),
    prefix=st.integers(0, 3),
    budget=st.sampled_from([1, 64, 700, 5000, 1 << 24]),
    patch=st.sampled_from([8, 14, 16]),
    seed=st.integers(0, 9),
)
def test_in_pieces_equals_whole(grid: tuple[int, int], prefix: int, budget: int, patch: int, seed: int) -> None:
    """Whatever budget cuts the attention into, the three measures are those of the whole maps; each in its bounds."""
    torch.manual_seed(seed)
    tokens = prefix + grid[0] * grid[1]
    query, key = (2 * torch.randn(2, 3, tokens, 5) for _ in range(2))
    found = measures.measure(query, key, grid, patch=patch, budget=budget)
    attention = attention_of(query, key)
    close = {"atol": 2e-6, "rtol": 1e-5}
    torch.testing.assert_close(found.nmi, nmi(attention, prefix=prefix), **close)
    torch.testing.assert_close(found.entropy, row_entropy(attention, prefix=prefix), **close)
    torch.testing.assert_close(found.distance, attention_distance(attention, grid, patch=patch, prefix=prefix), **close)
    assert (found.nmi > -1e-6).all() and (found.nmi <= 1).all()
    assert (found.entropy <= math.log(grid[0] * grid[1]) + 1e-5).all()
    assert (found.distance <= patch * math.hypot(grid[0] - 1, grid[1] - 1) + 1e-4).all()


def test_nmi_does_not_depend_on_the_order_of_the_patches() -> None:
    attention = gaussian(2, (5, 6))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert float(nmi(attention[order][:, order], prefix=0)) == pytest.approx(float(nmi(attention, prefix=0)), abs=1e-6)


def peak_bytes(query: Tensor, key: Tensor, grid: tuple[int, int], budget: int) -> int:
    """The most that is allocated at once while measuring, as the allocator tells."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        measures.measure(query, key, grid, patch=16, budget=budget)
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(sizes).max())


def test_memory_is_bounded_by_the_budget() -> None:
    query, key = torch.randn(4, 12, 197, 16), torch.randn(4, 12, 197, 16)
    whole, budget, copies = 4 * 12 * 197 * 196 * 4, 1 << 20, 2 * query.nbytes
    assert whole > 7 * budget
    assert peak_bytes(query, key, (14, 14), budget) < 4 * budget + copies
    assert peak_bytes(query, key, (14, 14), whole) > 4 * budget + copies  # negative control: the bound can be broken


def test_memory_of_one_large_matrix_is_bounded_by_the_budget() -> None:
    """Rows of it at a time; not even the table of distances is ever whole."""
    query, key = torch.randn(1, 1, 1201, 8), torch.randn(1, 1, 1201, 8)
    budget, copies = 256 << 10, 2 * query.nbytes + 8 * 1200 * 8
    assert 20 * budget < 1201 * 1200 * 4
    assert peak_bytes(query, key, (30, 40), budget) < 4 * budget + copies


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (15, 20)])
def test_fourier_profile_is_the_shifted_spectrums_half_diagonal(grid: tuple[int, int]) -> None:
    features = torch.randn(3, *grid, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = np.log(np.abs(np.fft.fft2(features.numpy(), axes=(1, 2))) + 1e-6).mean(axis=(0, 3))
    shifted = np.fft.fftshift(spectrum)
    at = frequencies(grid)
    assert len(at) == min(grid) - min(grid) // 2 and at[0] == 0 and max(at) < 0.5
    if grid[0] == grid[1]:
        expected = shifted.diagonal()[grid[0] // 2 :]
    else:
        places = [(round(f * grid[0]), round(f * grid[1])) for f in at]
        expected = np.array([shifted[grid[0] // 2 + row, grid[1] // 2 + column] for row, column in places])
    np.testing.assert_allclose(fourier_profile(features, at), expected - expected[0], atol=1e-5)


def test_fourier_profile_of_a_constant_and_of_noise() -> None:
    flat = torch.ones(1, 8, 8, 2)
    assert float(fourier_profile(flat, frequencies((8, 8)))[1:].max()) < -15
    noise = torch.randn(64, 8, 8, 16, generator=torch.Generator().manual_seed(0))
    assert float(fourier_profile(noise, frequencies((8, 8))).abs().max()) < 0.5
