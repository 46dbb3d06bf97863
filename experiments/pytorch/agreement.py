"""Whether both libraries compute the same: the first losses and gradients."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.pytorch.contenders import (
    LEARNING_RATE,
    SEED,
    Task,
    build_model,
    make_dataset,
)
from experiments.pytorch.machine import (
    set_jax_precision,
    set_torch_precision,
    torch_precision,
)

CHECKED_BATCHES = 3
TIMED_STEPS = 10


@dataclass(frozen=True)
class Agreement:
    """How far the first steps of the two libraries differ, and what turns start from.

    Attributes:
      loss: relative difference of the losses.
      gradient: largest difference of the gradients, relative to the largest component.
      flops: FLOPs of the matrix products of one step, forward and backward.
      step_seconds: of PyTorch, forward and backward; the fastest of some.
      weights: PyTorch's state dict at the start.
    """

    loss: float
    gradient: float
    flops: float
    step_seconds: float
    weights: Mapping[str, np.ndarray]


def check_agreement(task: Task) -> Agreement:
    """Compares the losses and gradients of both libraries with the same noise.

    Args:
      task: its images are `CHECKED_BATCHES` batches.
    """
    import jax
    import jax.numpy as jnp
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from experiments.pytorch.networks import TorchVAE, negative_elbo
    from flaxvae.interop import to_torch
    from flaxvae.objectives import ELBO
    from flaxvae.training import Optimization, Training

    set_jax_precision(task.precision)
    set_torch_precision(task.precision)
    dataset = make_dataset(task.images)
    model = build_model(task, dataset)
    objective = ELBO()
    optimization = Optimization(
        epochs=task.epochs, batch_size=task.batch_size, learning_rate=LEARNING_RATE
    )
    training = Training(model, dataset, objective, optimization)
    state = training.init(SEED).state
    variables = {"params": state.params, **state.collections}
    weights = to_torch(variables, model, dataset.shape)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    twin = TorchVAE(model, dataset.shape).to(device)
    twin.load_state_dict(weights, strict=False)
    counter = FlopCounterMode(display=False)

    def differentiate(images: torch.Tensor, noise: torch.Tensor) -> float:
        twin.zero_grad()
        with torch_precision(task.precision, device):
            logits, *moments = twin(images, noise)
            loss = negative_elbo(logits, images, *moments)
        loss.backward()
        return loss.item()  # the device has finished

    @jax.jit
    def compute(params: Any, x: jax.Array, key: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            terms, _ = model.apply(
                variables | {"params": params},
                x,
                key=key,
                method=objective,
                mutable=list(state.collections),
            )
            return terms["loss"].mean()

        return jax.value_and_grad(loss)(params)

    def compare(x: np.ndarray, key: jax.Array) -> tuple[float, float]:
        our_loss, grads = compute(state.params, jnp.asarray(x), key)
        ours = to_torch({"params": grads}, model, dataset.shape)
        eps = jax.random.normal(key, (len(x), model.posterior.latent_dim))
        images = torch.from_numpy(x).permute(0, 3, 1, 2).to(device)
        noise = torch.tensor(np.array(eps)).to(device)
        with counter:
            their_loss = differentiate(images, noise)
        theirs = {
            name: p.grad.cpu()
            for name, p in twin.named_parameters()
            if p.grad is not None
        }
        largest = max(float(grad.abs().max()) for grad in theirs.values())
        difference = max(float((ours[n] - theirs[n]).abs().max()) for n in theirs)
        return abs(float(our_loss) / their_loss - 1), difference / largest

    batches = np.split(np.asarray(task.images, np.float32) / 255, CHECKED_BATCHES)
    # Where the input of a ReLU rounds to zero in one library only, the gradient of one
    # batch differs by that of an example: the median over batches is not affected.
    keys = jax.random.split(jax.random.key(SEED), CHECKED_BATCHES)
    pairs = [compare(x, key) for x, key in zip(batches, keys, strict=True)]
    loss, gradient = (statistics.median(column) for column in zip(*pairs, strict=True))
    images = torch.from_numpy(batches[0]).permute(0, 3, 1, 2).to(device)
    noise = torch.zeros(len(images), model.posterior.latent_dim, device=device)
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        differentiate(images, noise)
        seconds.append(time.perf_counter() - start)
    return Agreement(
        loss,
        gradient,
        float(counter.get_total_flops()),  # of the last batch
        min(seconds),
        {name: tensor.numpy() for name, tensor in weights.items()},
    )


def compute_orders(num_images: int, epochs: int) -> np.ndarray:
    """The order in which `fit` sees the images: int64 ``(epochs, num_images)``."""
    import jax

    from flaxvae.training.keys import Stream, stream_key

    root = jax.random.key(SEED)
    orders = [
        jax.random.permutation(stream_key(root, Stream.SHUFFLE, epoch), num_images)
        for epoch in range(epochs)
    ]
    return np.stack(orders).astype(np.int64)
