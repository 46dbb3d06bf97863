"""Numbers about autoencoders."""

import numpy as np

from flaxvae.data import Split
from flaxvae.latent.keys import draw_key
from flaxvae.latent.panels import corrupted
from flaxvae.objectives import Reconstruction
from flaxvae.training import Trained
from flaxvae.training.keys import Stream


def input_error(
    trained: Trained, split: Split, *, seed: int | None = None
) -> dict[str, float]:
    """The squared error of the noisy examples that a denoising autoencoder sees.

    Args:
      trained: a trained autoencoder.
      split: the examples, such as ``dataset.test``.
      seed: of the noise; default that of the run.

    Returns:
      ``squared_error_of_input``, the mean over all numbers of all examples; empty for
      an autoencoder that was not trained to remove noise.
    """
    objective = trained.objective
    if not isinstance(objective, Reconstruction) or objective.corruption == "none":
        return {}
    noisy, clean = corrupted(
        trained,
        split.x,
        objective,
        key=draw_key(trained, Stream.FIGURES, seed=seed),
    )
    return {"squared_error_of_input": float(np.mean((noisy - clean) ** 2))}
