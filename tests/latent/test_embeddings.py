import importlib.util

import numpy as np
import pytest
from sklearn.decomposition import PCA

from flaxvae.checks import InputError
from flaxvae.latent import embeddings, pca, tsne
from flaxvae.latent.embeddings import fit_pca, umap


@pytest.mark.parametrize("num_components", [1, 2, 5])
def test_pca_is_scikit_learns_up_to_sign(num_components):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 3.0
    points, share = pca(codes.astype(np.float32), num_components)
    reference = PCA(num_components).fit(codes)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(
        np.abs(points), np.abs(reference.transform(codes)), atol=1e-3
    )


@pytest.mark.parametrize(("N", "D"), [(12, 40), (40, 40), (40, 12)])
def test_projections_of_other_codes(N, D):
    """Of more dimensions than codes too, by the smaller of two matrices."""
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(N, D)) * np.linspace(1, 4, D)
    other = rng.normal(size=(7, D))
    axes = fit_pca(codes, 5)
    reference = PCA(5, svd_solver="full").fit(codes)
    np.testing.assert_allclose(axes.share, reference.explained_variance_ratio_)
    np.testing.assert_allclose(
        np.abs(axes.project(other)), np.abs(reference.transform(other)), atol=1e-9
    )
    np.testing.assert_allclose(
        axes.directions.T @ axes.directions, np.eye(5), atol=1e-9
    )


def test_there_are_no_more_axes_than_codes_or_dimensions():
    codes = np.random.default_rng(0).normal(size=(3, 9))
    points, share = pca(codes, 6)
    assert points.shape == (3, 3) and np.isfinite(points).all()
    assert share[:2].sum() == pytest.approx(1.0) and share[2] == pytest.approx(0.0)


def test_tsne_keeps_groups_together_and_names_the_rows(monkeypatch):
    rng = np.random.default_rng(0)
    codes = np.repeat([0.0, 30.0], 30)[:, None] + rng.normal(size=(60, 5))
    monkeypatch.setattr(embeddings, "MOST_POINTS", 40)
    places, rows = tsne(codes, seed=1)
    assert places.shape == (40, 2) and (np.diff(rows) > 0).all()
    left, right = places[rows < 30], places[rows >= 30]
    assert np.ptp(left, axis=0).max() < np.linalg.norm(left.mean(0) - right.mean(0))


def test_collapsed_codes_explain_nothing():
    points, share = pca(np.ones((10, 3)))
    assert (points == 0).all()
    assert (share == 0).all()


def test_the_sign_is_settled():
    codes = np.random.default_rng(0).normal(size=(50, 3)) * [3.0, 2.0, 1.0]
    points, _ = pca(codes)
    assert np.corrcoef(points[:, 0], codes[:, 0])[0, 1] > 0.9
    assert np.corrcoef(points[:, 1], codes[:, 1])[0, 1] > 0.9


def test_tsne_of_equal_codes_of_one_dimension_and_of_too_few():
    places, rows = tsne(np.ones((9, 3), np.float32))
    assert places.shape == (9, 2) and not places.any() and len(rows) == 9
    places, _ = tsne(np.arange(9.0)[:, None])
    assert np.isfinite(places).all()
    with pytest.raises(InputError, match="codes must be 4 or more for t-SNE, got 3"):
        tsne(np.zeros((3, 2)))


@pytest.mark.slow  # its compilation takes a minute
def test_umap_keeps_groups_together_and_names_the_rows(monkeypatch):
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    codes = np.repeat([0.0, 30.0], 30)[:, None] + rng.normal(size=(60, 5))
    monkeypatch.setattr(embeddings, "MOST_POINTS", 40)
    places, rows = umap(codes, seed=1)
    assert places.shape == (40, 2) and (np.diff(rows) > 0).all()
    left, right = places[rows < 30], places[rows >= 30]
    assert np.ptp(left, axis=0).max() < np.linalg.norm(left.mean(0) - right.mean(0))
    assert not umap(np.ones((9, 3)))[0].any()
    with pytest.raises(InputError, match="codes must be 5 or more for UMAP, got 4"):
        umap(np.zeros((4, 2)))


def test_without_umap_learn_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'umap-learn: pip install -e "\.\[umap\]"'):
        umap(np.zeros((9, 2)))
