import numpy as np
import pytest
from sklearn.decomposition import PCA

from flaxvae.latent import pca


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


def test_collapsed_codes_explain_nothing():
    points, share = pca(np.ones((10, 3)))
    assert (points == 0).all()
    assert (share == 0).all()


def test_the_sign_is_settled():
    codes = np.random.default_rng(0).normal(size=(50, 3)) * [3.0, 2.0, 1.0]
    points, _ = pca(codes)
    assert np.corrcoef(points[:, 0], codes[:, 0])[0, 1] > 0.9
    assert np.corrcoef(points[:, 1], codes[:, 1])[0, 1] > 0.9
