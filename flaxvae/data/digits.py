"""The handwritten digits that come with scikit-learn: real data without a download."""

import numpy as np

from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.preprocess import Preprocessing

NUM_TEST = 297  # leaves 1,500 of the 1,797 for training and validation


def load_digits() -> Dataset:
    """Loads 1,797 images of 8x8 pixels with 17 grey levels, 0 to 16.

    The images are in a fixed random order; the last 297 are the test split.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", 1998,
    UCI Machine Learning Repository (the test part).
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = digits.images[order].astype(np.uint8)[..., np.newaxis]  # (N, 8, 8, 1)
    split = Split(images, digits.target[order].astype(np.int32), rows=order)
    return Dataset(
        name="digits",
        train=split[:-NUM_TEST],
        validation=split[:0],
        test=split[-NUM_TEST:],
        preprocessing=Preprocessing(max_value=16.0),
        class_names=tuple("0123456789"),
        origin="scikit-learn (embedded)",
    )
