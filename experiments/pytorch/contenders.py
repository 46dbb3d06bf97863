"""What the benchmark times: one training in flaxvae and in several kinds of PyTorch.

Every contender starts from the same weights and sees the same batches. PyTorch is
imported inside the functions, after a process has chosen its threads.
"""

import abc
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from experiments.pytorch.machine import (
    begin_memory,
    set_jax_precision,
    set_torch_precision,
    torch_precision,
    used_by_jax,
    used_memory,
)
from flaxvae import training
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.models import VAE
from flaxvae.models.presets import PRESETS
from flaxvae.training.optimizers import adam
from flaxvae.training.storage.environment import use_compilation_cache

LEARNING_RATE = 1e-3
SEED = 0


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
      preset: a key of `flaxvae.models.presets.PRESETS`.
      precision: ``float32``, ``tf32`` or ``bfloat16``.
      batch_size: B.
      epochs: epochs in a turn, of ``N // B`` steps each.
      images: uint8 ``(N, H, W, C)``, N a multiple of B.
      threads: cores and threads of a contender.
      weights: PyTorch's state dict at the start.
      orders: ``(epochs, N)``, the order of the images in each epoch.
    """

    preset: str
    precision: str
    batch_size: int
    epochs: int
    images: np.ndarray
    threads: int
    weights: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    orders: np.ndarray | None = None


@dataclass(frozen=True)
class Turn:
    """The result of a turn.

    Attributes:
      seconds: duration of the median epoch.
      wall_seconds: duration of the whole turn; the first one includes compiling.
      loss: mean loss of the last epoch, in nats per image.
    """

    seconds: float
    wall_seconds: float
    loss: float


class Contender(Protocol):
    """One way to train; it lives in a process of its own."""

    def take_turn(self) -> Turn:
        """Trains from the same start; every turn does the same work."""

    def measure_memory(self) -> int:
        """The largest memory of the training, in bytes.

        On a GPU that of the device; on a CPU what the process has held beyond its
        memory before the first turn.
        """


class Flaxvae:
    """The ordinary `fit`, with a compilation cache that only its own turns share."""

    def __init__(self, task: Task) -> None:
        set_jax_precision(task.precision)
        self._cache = tempfile.TemporaryDirectory()
        use_compilation_cache(Path(self._cache.name))
        self.task = task
        self.dataset = make_dataset(task.images)
        self.model = build_model(task, self.dataset)
        self._memory_before = begin_memory()

    def take_turn(self) -> Turn:
        """One call of `fit`."""
        start = time.perf_counter()
        trained = training.fit(
            self.model,
            self.dataset,
            optimizer=adam(LEARNING_RATE),
            epochs=self.task.epochs,
            batch_size=self.task.batch_size,
            seed=SEED,
            progress=False,
            on_interrupt="raise",
        )
        return Turn(
            trained.timing["seconds_per_epoch"],
            time.perf_counter() - start,
            trained.history[-1]["train"]["loss"],
        )

    def measure_memory(self) -> int:
        """See `Contender`."""
        return used_by_jax(self._memory_before)


class TorchContender(abc.ABC):
    """The common part of PyTorch's contenders."""

    def __init__(self, task: Task) -> None:
        import torch

        from experiments.pytorch.networks import TorchVAE

        torch.set_num_threads(task.threads)
        set_torch_precision(task.precision)
        self.task = task
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dataset = make_dataset(task.images)
        twin = TorchVAE(build_model(task, dataset), dataset.shape)
        self.vae = twin.to(self.device)
        self.start = {k: torch.from_numpy(v.copy()) for k, v in task.weights.items()}
        self._memory_before = begin_memory()

    @abc.abstractmethod
    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """Trains for one epoch; returns the mean loss."""

    def make_optimizer(self) -> Any:
        """Adam with PyTorch's defaults."""
        import torch

        return torch.optim.Adam(self.vae.parameters(), LEARNING_RATE)

    def take_turn(self) -> Turn:
        """Restores the initial weights and trains."""
        import torch

        torch.manual_seed(SEED)
        start = time.perf_counter()
        # Not strict: the start has no counts of batches.
        self.vae.load_state_dict(self.start, strict=False)
        optimizer = self.make_optimizer()
        seconds = []
        assert self.task.orders is not None
        for order in self.task.orders:
            epoch_start = time.perf_counter()
            # The loss is a Python number, so the device has finished.
            loss = self.run_epoch(order, optimizer)
            seconds.append(time.perf_counter() - epoch_start)
        wall_seconds = time.perf_counter() - start
        return Turn(statistics.median(seconds), wall_seconds, loss)

    def measure_memory(self) -> int:
        """See `Contender`."""
        import torch

        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return used_memory(self._memory_before)


class TorchTutorial(TorchContender):
    """Dataset and DataLoader, sigmoid and binary cross-entropy, ``.item()``."""

    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """See `experiments.pytorch.loops.train_like_a_tutorial`."""
        from experiments.pytorch.loops import make_loader, train_like_a_tutorial

        images = self.task.images[..., 0]
        loader = make_loader(images, self.task.batch_size, order.tolist())
        with torch_precision(self.task.precision, self.device):
            total = train_like_a_tutorial(self.vae, loader, optimizer, self.device)
        return total / len(images)


class TorchTuned(TorchContender):
    """Images on the device as floats, logits, fused Adam, no synchronization."""

    def __init__(self, task: Task) -> None:
        import torch

        super().__init__(task)
        images = torch.from_numpy(np.array(self.task.images)).permute(0, 3, 1, 2)
        self.images = images.to(self.device).float().contiguous() / 255

    def make_optimizer(self) -> Any:
        """PyTorch's fused Adam."""
        import torch

        return torch.optim.Adam(self.vae.parameters(), LEARNING_RATE, fused=True)

    def loss_of(self, x: Any) -> Any:
        """The loss of a batch."""
        from experiments.pytorch.networks import negative_elbo

        with torch_precision(self.task.precision, self.device):
            logits, mean, log_var = self.vae(x)
            return negative_elbo(logits, x, mean, log_var)

    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """See `experiments.pytorch.loops.train_tuned`."""
        import torch

        from experiments.pytorch.loops import train_tuned

        indices = torch.from_numpy(order).to(self.device)
        batches = indices.split(self.task.batch_size)
        return train_tuned(self.loss_of, batches, self.images, optimizer)


class TorchCompiled(TorchTuned):
    """The tuned loop with ``torch.compile`` around the loss."""

    mode: str | None = None

    def __init__(self, task: Task) -> None:
        import torch

        super().__init__(task)
        self.loss_of = torch.compile(super().loss_of, mode=self.mode)  # type: ignore[method-assign]


class TorchGraphs(TorchCompiled):
    """``torch.compile`` with CUDA graphs."""

    mode = "reduce-overhead"


CONTENDERS: dict[str, Callable[[Task], Contender]] = {
    "flaxvae": Flaxvae,
    "PyTorch, tutorial": TorchTutorial,
    "PyTorch, tuned": TorchTuned,
    "PyTorch, torch.compile": TorchCompiled,
    "PyTorch, CUDA graphs": TorchGraphs,
}


def make_dataset(images: np.ndarray) -> Dataset:
    """The images as a training split, without validation and test examples."""
    split = Split(images)
    scaling = Preprocessing(max_value=255.0)
    return Dataset("images", split, split[:0], split[:0], preprocessing=scaling)


def build_model(task: Task, dataset: Dataset) -> VAE:
    """The model of the task's preset, in the task's precision."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    if task.precision == "bfloat16":
        dtype = "bfloat16"
    return dataclasses.replace(PRESETS[task.preset], dtype=dtype).build(dataset)
