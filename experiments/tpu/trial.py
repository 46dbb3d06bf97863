"""A training that is described to the compiler in shapes, without any memory."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flaxvae.collectives import DATA_AXIS
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.data.preprocess import Binarization
from flaxvae.models import HierarchicalConfig, VAEConfig
from flaxvae.models.presets import LEVEL_PRESETS, PRESETS
from flaxvae.training import Optimization, Training
from flaxvae.training.epochs import Layout
from flaxvae.training.parallel import Devices
from flaxvae.training.state import count_parameters

MODELS: dict[str, VAEConfig | HierarchicalConfig] = {**PRESETS, **LEVEL_PRESETS}
DATA_SHAPE = (28, 28, 1)
VALIDATION_SHARE = 0.05  # validation examples, relative to the training examples
# The other presets train on grey levels.
BINARIZE: dict[str, Binarization] = {"mlp-binary": "dynamic"}


@dataclass(frozen=True)
class Trial:
    """A training in shapes that are placed on devices.

    Attributes:
      training: what is trained.
      devices: the devices that share a batch.
      loop_state: shapes of all that a run carries from step to step, on every device.
      batch: shape of a stored batch, split over the devices.
      examples: shapes of both splits, on every device.
    """

    training: Training
    devices: Devices
    loop_state: Any
    batch: Any
    examples: Any

    @property
    def parameters(self) -> int:
        """Number of trained scalars."""
        return count_parameters(self.loop_state.state.params)

    def compile_step(self) -> Any:
        """Compiles the train step."""
        return self.devices.compile(
            self.training.step, self.loop_state.state, self.batch, donate=(0,)
        )

    def compile_run(self) -> Any:
        """Compiles the function that `fit` calls: many steps, epochs and validation."""
        count = place(np.int32(0), self.devices.replicated)
        layout = Layout(devices=self.devices)
        advance = functools.partial(self.training.epochs, layout=layout)
        return self.devices.compile(
            advance, self.loop_state, self.examples, count, count, donate=(0,)
        )


def make_trial(
    preset: str, devices: Devices, *, batch_size: int, train_examples: int
) -> Trial:
    """Assembles the training of a preset in shapes.

    Args:
      preset: a key of `MODELS`.
      devices: the devices that share a batch.
      batch_size: B, over all devices.
      train_examples: N, which every device holds.
    """
    held_out = round(VALIDATION_SHARE * train_examples)
    shape = (train_examples + held_out, *DATA_SHAPE)
    images = Split(np.broadcast_to(np.uint8(0), shape))  # one byte of memory
    dataset = Dataset(
        "shapes",
        train=images[:train_examples],
        validation=images[train_examples:],
        test=images[:0],
        preprocessing=Preprocessing(
            max_value=255.0, binarize=BINARIZE.get(preset, "none")
        ),
    )
    training = Training(
        MODELS[preset].build(dataset),
        dataset,
        optimization=Optimization(epochs=1, batch_size=batch_size),
    )
    loop_state = jax.eval_shape(lambda: training.init(0))
    batch = jax.ShapeDtypeStruct((batch_size, *dataset.shape), np.uint8)
    split = NamedSharding(devices.replicated.mesh, PartitionSpec(DATA_AXIS))
    examples = (dataset.train.x, dataset.validation.x)
    return Trial(
        training,
        devices,
        loop_state=place(loop_state, devices.replicated),
        batch=place(batch, split),
        examples=place(examples, devices.replicated),
    )


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Shapes of a tree of arrays or shapes, on the devices of ``sharding``."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )
