"""Other libraries for models with latent variables on the benchmark's trainings."""

import logging
import statistics
import time
from typing import Any

import numpy as np

from experiments.pytorch.contenders import (
    LEARNING_RATE,
    SEED,
    Task,
    TorchContender,
    Turn,
)
from experiments.pytorch.machine import (
    begin_memory,
    set_jax_precision,
    used_by_jax,
)
from flaxvae.models.presets import PRESETS


def runs_in_numpyro(preset: str, precision: str) -> bool:
    """Whether `NumpyroSVI` has this network: an MLP with ReLUs, not in bfloat16."""
    config = PRESETS[preset]
    is_mlp = config.encoder == "mlp" and config.activation == "relu"
    return is_mlp and precision != "bfloat16"


def runs_in_pythae(preset: str, precision: str) -> bool:
    """Whether `PythaeTrainer` can train: with its loss in float32 or TF32 alone."""
    return precision != "bfloat16"


class NumpyroSVI:
    """NumPyro's SVI with the analytic KL, every epoch one compiled ``lax.scan``.

    The images are on the device as floats.
    """

    def __init__(self, task: Task) -> None:
        import jax
        import jax.numpy as jnp
        import numpyro
        from numpyro import distributions as dist
        from numpyro.infer import SVI, TraceMeanField_ELBO

        set_jax_precision(task.precision)
        self.task = task
        B = task.batch_size
        images = jnp.asarray(task.images, jnp.float32).reshape(len(task.images), -1)
        self.images = images / 255
        layers = [name for name in task.weights if name.endswith(".weight")]
        depth = sum("encoder.hidden" in name for name in layers)

        def dense(x: jax.Array, name: str) -> jax.Array:
            kernel, bias = (
                jnp.asarray(task.weights[f"{name}.{part}"].T)
                for part in ("weight", "bias")
            )
            kernel = numpyro.param(f"{name}.weight", kernel)
            return x @ kernel + numpyro.param(f"{name}.bias", bias)[None]

        def hidden(x: jax.Array, network: str) -> jax.Array:
            for i in range(depth):
                x = jax.nn.relu(dense(x, f"{network}.hidden_{i}"))
            return x

        @numpyro.handlers.scale(scale=1 / B)  # the mean over the batch
        def model(x: jax.Array) -> None:
            with numpyro.plate("batch", B):
                zeros = jnp.zeros((B, PRESETS[task.preset].latent_dim))
                z = numpyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
                logits = dense(hidden(z, "decoder"), "decoder.output")
                # NumPyro's own Bernoulli refuses grey levels.
                each = x * logits - jax.nn.softplus(logits)
                numpyro.factor("x", each.sum(-1))

        @numpyro.handlers.scale(scale=1 / B)
        def guide(x: jax.Array) -> None:
            h = hidden(x, "encoder")
            moments = dense(h, "posterior.mean_and_log_var")
            mean, log_var = jnp.split(moments, 2, axis=-1)
            with numpyro.plate("batch", B):
                q = dist.Normal(mean, jnp.exp(0.5 * log_var))
                numpyro.sample("z", q.to_event(1))

        optimizer = numpyro.optim.Adam(LEARNING_RATE)
        svi = SVI(model, guide, optimizer, TraceMeanField_ELBO())

        def epoch(state: object, images: jax.Array, order: jax.Array) -> object:
            batches = order.reshape(-1, B)
            state, losses = jax.lax.scan(
                lambda state, rows: svi.update(state, images[rows]), state, batches
            )
            return state, losses.mean()

        self._epoch = jax.jit(epoch, donate_argnums=0)
        self._init = jax.jit(svi.init)
        self._memory_before = begin_memory()

    def take_turn(self) -> Turn:
        """Restores the initial weights and trains."""
        import jax

        start = time.perf_counter()
        state = self._init(jax.random.key(SEED), self.images[: self.task.batch_size])
        seconds, loss = [], 0.0
        assert self.task.orders is not None
        for order in self.task.orders:
            epoch_start = time.perf_counter()
            rows = order.astype(np.int32)
            state, mean = self._epoch(state, self.images, rows)
            loss = float(mean)  # the device has finished
            seconds.append(time.perf_counter() - epoch_start)
        wall_seconds = time.perf_counter() - start
        return Turn(statistics.median(seconds), wall_seconds, loss)

    def measure_memory(self) -> int:
        """See `Contender`."""
        return used_by_jax(self._memory_before)


class PythaeTrainer(TorchContender):
    """pythae's `BaseTrainer` and `VAE` on the benchmark's networks in PyTorch.

    The trainer's own loop over a DataLoader, without its progress bars; it reads the
    batches of the other contenders. Source: Chadebec et al., "Pythae: Unifying
    Generative Autoencoders in Python", 2022, arXiv 2206.08309.
    """

    def __init__(self, task: Task) -> None:
        import torch
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
        from pythae.trainers.base_trainer import base_trainer
        from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback

        super().__init__(task)
        base_trainer.logger.setLevel(logging.WARNING)

        class Encoder(BaseEncoder):
            """The features and the head of the benchmark's posterior."""

            def __init__(self, vae: Any) -> None:
                super().__init__()
                self.network = vae.encoder
                self.head = vae.posterior["mean_and_log_var"]

            def forward(self, x: torch.Tensor) -> ModelOutput:
                """The moments of the posterior."""
                mean, log_var = self.head(self.network(x)).chunk(2, dim=1)
                return ModelOutput(embedding=mean, log_covariance=log_var)

        class Decoder(BaseDecoder):
            """The probabilities of the benchmark's decoder."""

            def __init__(self, vae: Any) -> None:
                super().__init__()
                self.network = vae.decoder

            def forward(self, z: torch.Tensor) -> ModelOutput:
                """The mean of the likelihood."""
                return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))

        N, H, W, C = task.images.shape
        images = torch.from_numpy(task.images).permute(0, 3, 1, 2) / 255
        self.dataset = BaseDataset(images, torch.zeros(N))
        config = VAEConfig(
            input_dim=(C, H, W),
            latent_dim=PRESETS[task.preset].latent_dim,
            reconstruction_loss="bce",
        )
        model = VAE(config, encoder=Encoder(self.vae), decoder=Decoder(self.vae))
        settings = BaseTrainerConfig(per_device_train_batch_size=task.batch_size)
        self.trainer = BaseTrainer(model, self.dataset, training_config=settings)
        self.trainer.callback_handler = CallbackHandler([TrainingCallback()], model)

    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """`BaseTrainer.train_step`, which is an epoch."""
        import torch
        from pythae.data.datasets import collate_dataset_output

        self.trainer.optimizer = optimizer
        self.trainer.train_loader = torch.utils.data.DataLoader(
            self.dataset,
            self.task.batch_size,
            sampler=order.tolist(),
            collate_fn=collate_dataset_output,
        )
        return float(self.trainer.train_step(epoch=1))
