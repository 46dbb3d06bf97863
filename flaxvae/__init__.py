"""flaxvae: customizable variational autoencoders in JAX and Flax.

    digits = flaxvae.data.load("digits")
    vae = flaxvae.models.build_vae(digits.shape, latent_dim=2)
    run = flaxvae.fit(vae, digits, workdir="runs/digits")
    report = run.evaluate()
    run.draw()

Importing it loads jax, flax, optax and numpy and nothing else, and lets JAX compile,
and draw the same random bits, in less time on CPUs: `flaxvae.compiler`,
`flaxvae.threefry`.
"""

from flaxvae import (
    compiler,
    data,
    distributions,
    evaluation,
    interop,
    latent,
    models,
    nn,
    objectives,
    schedules,
    threefry,
    training,
)
from flaxvae.checks import InputError
from flaxvae.run import Run, fit, load, save, sweep

compiler.install()
threefry.install()

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Run",
    "data",
    "distributions",
    "evaluation",
    "fit",
    "interop",
    "latent",
    "load",
    "models",
    "nn",
    "objectives",
    "save",
    "schedules",
    "sweep",
    "training",
]
