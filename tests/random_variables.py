"""Variables for tests that need some, without a compiled ``init``."""

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.objectives.objective import with_arrays
from flaxvae.training.state import TrainState


def random_variables(module, *args, seed=0, **options):
    """NumPy arrays of the shapes that ``module.init(key, *args, **options)`` has."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **options))
    return random_values(shapes, seed)


def random_values(shapes, seed=0):
    """NumPy arrays of the shapes of a model's variables.

    Kernels keep the size of what passes; nothing else is at its start.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if not np.issubdtype(leaf.dtype, np.floating):
            values = np.zeros(shape)  # a counter
        elif name in ("pseudo_inputs", "var", "uses"):
            values = rng.uniform(0.2, 0.8, shape)
        elif name == "scale":
            values = rng.uniform(0.7, 1.3, shape)
        elif name == "kernel":
            values = rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5
        else:
            values = 0.3 * rng.normal(size=shape)
        return np.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def begin(training, variables):
    """The state of a `Training` at step 0 from these variables."""
    collections = dict(variables)
    params = collections.pop("params")
    return TrainState(
        step=jnp.int32(0),
        params=params,
        collections=collections,
        opt_state=jax.jit(training.transformation.init)(params),
        objective=with_arrays(training.completed.objective),
        key=jax.random.key(0),
        skipped=jnp.int32(0),
    )
