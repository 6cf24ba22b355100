"""Closed forms against what they are the closed form of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel

from llmembed.heads.kernels import KERNELS, median_distance, terms_kernel
from llmembed.heads.ridge import Landmarks, Split, left_out, solve

N, C = 120, 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, N)
    rows = rng.normal(size=(N, 6)) + 2 * np.eye(6)[labels]
    gram = rbf_kernel(rows, gamma=0.05)
    parts = np.array_split(rng.permutation(N), 5)
    splits = [Split(fitted=np.setdiff1d(np.arange(N), part), held=np.sort(part)) for part in parts]
    return torch.from_numpy(gram).float(), torch.from_numpy(np.eye(C)[labels]).float(), splits


def by_scikit_learn(gram, targets, split, penalty, weights=None):
    """What a fit on the others says of the held rows."""
    own = gram.double().numpy()
    bias = targets[split.fitted].mean(0).numpy()
    model = KernelRidge(alpha=penalty, kernel="precomputed")
    model.fit(
        own[np.ix_(split.fitted, split.fitted)],
        targets[split.fitted].numpy() - bias,
        sample_weight=None if weights is None else weights[split.fitted],
    )
    return model.predict(own[np.ix_(split.held, split.fitted)]) + bias


def test_left_out_rows_are_answered_by_fits_on_the_others(data):
    gram, targets, splits = data
    found = left_out(gram, targets, torch.full((N,), 0.03), splits)
    for split in splits:
        expected = by_scikit_learn(gram, targets, split, 0.03)
        np.testing.assert_allclose(found[split.held], expected, atol=2e-3)


def test_rows_weigh_by_their_weights(data):
    gram, targets, splits = data
    weights = np.random.default_rng(1).uniform(0.2, 3, N)
    ridge = torch.from_numpy(0.03 / weights).float()
    found = left_out(gram, targets, ridge, splits[:1])
    expected = by_scikit_learn(gram, targets, splits[0], 0.03, weights)
    np.testing.assert_allclose(found[splits[0].held], expected, atol=2e-3)
    assert found[splits[1].held].isnan().all(), "never held, never answered"


def test_with_every_row_for_a_landmark_nothing_is_lost(data):
    gram, targets, splits = data
    sums = Landmarks(lambda rows: gram[rows], gram, targets, torch.ones(N), splits)
    [found] = sums.left_out([0.03])
    np.testing.assert_allclose(
        found, left_out(gram, targets, torch.full((N,), 0.03), splits), atol=0.02
    )
    coefficients, bias = sums.solve(0.03)
    exact = solve(gram, targets - targets.mean(0), torch.full((N,), 0.03))
    np.testing.assert_allclose(
        gram @ coefficients + bias, gram @ exact + targets.mean(0), atol=0.02
    )


def test_fewer_landmarks_answer_nearly_as_well(data):
    gram, targets, splits = data
    marks = np.arange(0, N, 3)
    sums = Landmarks(
        lambda rows: gram[rows][:, marks], gram[marks][:, marks], targets, torch.ones(N), splits
    )
    [found] = sums.left_out([0.03])
    exact = left_out(gram, targets, torch.full((N,), 0.03), splits)
    right, all_right = (
        (each.argmax(1) == targets.argmax(1)).float().mean() for each in (found, exact)
    )
    assert right > all_right - 0.05


@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-4])
def test_equal_rows_are_answered_by_their_mean(penalty):
    gram = torch.ones(50, 50)
    targets = torch.arange(50.0)[:, None]
    found = gram.double() @ solve(gram, targets, torch.full((50,), penalty)).double()
    np.testing.assert_allclose(found, np.full((50, 1), 24.5), rtol=1e-2)


def test_terms_are_multiplied_in_two_ways_to_one_matrix():
    rng = np.random.default_rng(2)
    dense = rng.random((60, 300)) * (rng.random((60, 300)) < np.linspace(0.01, 0.5, 300))
    rows = csr_matrix(dense.astype(np.float32))
    np.testing.assert_allclose(terms_kernel(rows, rows), dense @ dense.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        terms_kernel(rows[:7], rows), dense[:7] @ dense.T, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", KERNELS)
def test_a_row_is_nearest_to_itself(name):
    rows = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    width = 30.0 if name == "linear" else median_distance(rows)
    gram = KERNELS[name](rows, rows, width)
    assert (gram.argmax(1) == torch.arange(40)).all()
    assert torch.linalg.eigvalsh(gram.double()).min() > -1e-4
    if name != "linear":
        np.testing.assert_allclose(gram.diagonal(), 1, atol=1e-3)


def test_rows_that_are_all_alike_have_a_width():
    assert median_distance(torch.ones(10, 3)) == 1
    assert median_distance(torch.ones(1, 3)) == 1
