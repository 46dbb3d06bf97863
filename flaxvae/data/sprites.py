"""Sprites of known shape, scale, orientation and position, to study disentanglement.

737,280 images of 64 x 64 zeros and ones; see `flaxvae.data.drawing`.
"""

import numpy as np

from flaxvae.data.dataset import Dataset, Split
from flaxvae.data.drawing import FACTOR_SIZES
from flaxvae.data.preprocess import Preprocessing

FACTORS = ("shape", "scale", "orientation", "position_x", "position_y")
SHAPES = ("square", "ellipse", "heart")
NUM_IMAGES = int(np.prod(FACTOR_SIZES))


def load_sprites() -> Dataset:
    """All 737,280 sprites: their factors, from which the compiled step draws them."""
    factors = all_factors()
    train = Split(factors, factors[:, 0].astype(np.int32), factors)
    return Dataset(
        "sprites",
        train=train,
        validation=train[:0],
        test=train[:0],
        preprocessing=Preprocessing(render="sprites"),
        class_names=SHAPES,
        factor_names=FACTORS,
        origin="drawn from the factors of dSprites; not the original file",
    )


def all_factors() -> np.ndarray:
    """Every combination, ``(737280, 5)`` uint8; the last factor changes fastest."""
    index = np.arange(NUM_IMAGES)
    return np.stack(np.unravel_index(index, FACTOR_SIZES), axis=1).astype(np.uint8)
