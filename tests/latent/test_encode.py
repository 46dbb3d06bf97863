"""Data sets as codes."""

import dataclasses

import numpy as np
import pytest

from flaxvae.data import condition_on_labels
from flaxvae.latent import encode_dataset
from flaxvae.latent.encode import share_codes
from flaxvae.models import build_vae, build_vqvae
from flaxvae.objectives import Quantization
from flaxvae.training import fit

SMALL = {"epochs": 1, "batch_size": 50, "progress": False}


def test_codes_of_all_splits_with_their_labels(stripes):
    data = dataclasses.replace(stripes, validation=stripes.validation[:0])
    data = condition_on_labels(data)
    vae = build_vae(data.shape, 3, hidden=(8,), conditional="concat", num_classes=8)
    trained = fit(vae, data, **SMALL)
    codes = encode_dataset(trained, data)
    assert codes.name == "codes of stripes"
    assert codes.class_names == data.class_names
    assert codes.validation.x.shape == (0, 3)
    assert codes.shape == (3,) and codes.is_table
    expected = trained.encode(data.test.x, data.test.condition).mean
    np.testing.assert_array_equal(codes.test.x, expected)
    np.testing.assert_array_equal(codes.train.labels, data.train.labels)


@pytest.mark.slow
def test_numbers_of_entries(stripes):
    data = dataclasses.replace(stripes, validation=stripes.validation[:0])
    model = build_vqvae(data.shape, num_codes=5, code_width=2, filters=(4,))
    trained = fit(model, data, objective=Quantization(), **SMALL)
    codes = encode_dataset(trained, data, indices=True)
    H, W = trained.code_shape[:2]
    assert codes.test.x.shape == (len(data.test), H, W, 1)
    assert codes.validation.x.shape == (0, H, W, 1)
    assert codes.test.x.dtype == np.uint16
    assert codes.levels == 5 and codes.shape == (H, W, 1)
    entries = trained.model.apply(
        trained.variables, codes.test.x[..., 0].astype(int), method="lookup"
    )
    means = encode_dataset(trained, data).test.x
    np.testing.assert_allclose(entries, means, atol=1e-6)
    shares = share_codes(codes.train.x, 5)
    assert shares.shape == (5,) and np.isclose(shares.sum(), 1.0)
