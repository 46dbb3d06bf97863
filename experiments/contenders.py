"""What the benchmark times: one training in flaxvae and in several kinds of PyTorch.

Each contender lives in a process of its own (`Corner`), so that neither threads nor
memory are shared. Each begins with the same weights and sees the same batches.
"""

import abc
import concurrent.futures
import dataclasses
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

LEARNING_RATE = 1e-3
SEED = 0
MATMUL_SIZE = 4096  # rows and columns of the product that measures the machine
MATMUL_SECONDS = 1.0
CHECKED_BATCHES = 3


@dataclass(frozen=True)
class Task:
    """One training, of which an epoch has ``len(images) // batch_size`` steps."""

    preset: str  # see `PRESETS`
    precision: str  # float32, tf32 or bfloat16
    batch_size: int
    epochs: int  # in a turn
    images: np.ndarray  # uint8 (N, H, W, C), N a multiple of batch_size
    threads: int
    weights: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    orders: np.ndarray | None = None  # (epochs, N): the order of each epoch


@dataclass(frozen=True)
class Turn:
    """What came out of a turn."""

    seconds: float  # median epoch
    wall_seconds: float  # the whole turn; in the first one compiling is part of it
    loss: float  # of the last epoch, nats per image


@dataclass(frozen=True)
class Agreement:
    """How far the two libraries' first steps are apart, and what later turns need."""

    loss: float  # relative
    gradient: float  # relative to its largest component
    flops: float  # of a step's products, forward and backward
    weights: Mapping[str, np.ndarray]  # PyTorch's state dict at the start


class Contender(Protocol):
    """Made in a process of its own."""

    def take_turn(self) -> Turn:
        """Trains from the same start; always the same work."""

    def memory(self) -> int:
        """Most bytes that training took."""


class Corner:
    """A process in which one contender waits for its turns."""

    def __init__(self, make: Callable[[Task], Contender], task: Task) -> None:
        self._pool = make_pool(task.threads)
        self._pool.submit(_enter, make, task).result()

    def take_turn(self) -> Turn:
        """See `Contender`."""
        return self._pool.submit(_take_turn).result()

    def leave(self) -> int:
        """Ends the process; the most bytes that training took."""
        memory = self._pool.submit(_memory).result()
        self._pool.shutdown()
        return memory


def make_pool(threads: int) -> concurrent.futures.ProcessPoolExecutor:
    """One fresh process that has so many cores and shares a GPU with others."""
    return concurrent.futures.ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_pin,
        initargs=(threads,),
    )


def _pin(threads: int) -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)


_contender: Contender


def _enter(make: Callable[[Task], Contender], task: Task) -> None:
    global _contender
    _contender = make(task)


def _take_turn() -> Turn:
    return _contender.take_turn()


def _memory() -> int:
    return _contender.memory()


class Flaxvae:
    """The ordinary `fit`. Compiled programs are kept for later turns only."""

    def __init__(self, task: Task) -> None:
        import tempfile

        from flaxvae import training

        set_jax_precision(task.precision)
        self._cache = tempfile.TemporaryDirectory()
        training.use_compilation_cache(Path(self._cache.name))
        self.task = task
        self.model = build_model(task)
        self.dataset = as_dataset(task.images)
        self._before = _resident()

    def take_turn(self) -> Turn:
        """One call of `fit`."""
        from flaxvae import training

        began = time.perf_counter()
        trained = training.fit(
            self.model,
            self.dataset,
            optimizer=training.adam(LEARNING_RATE),
            epochs=self.task.epochs,
            batch_size=self.task.batch_size,
            seed=SEED,
            progress=False,
        )
        return Turn(
            trained.timing["seconds_per_epoch"],
            time.perf_counter() - began,
            trained.history[-1]["train"]["loss"],
        )

    def memory(self) -> int:
        """Of the device; on a CPU of the process, beyond what it began with."""
        from flaxvae.training.environment import peak_memory

        before = 0 if is_on_gpu() else self._before
        return (peak_memory() or 0) - before


class TorchContender(abc.ABC):
    """What the kinds of PyTorch share."""

    def __init__(self, task: Task) -> None:
        import torch

        from experiments.torch_networks import TorchVAE

        torch.set_num_threads(task.threads)
        set_torch_precision(task.precision)
        self.task = task
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        shape = task.images.shape[1:]
        self.vae = TorchVAE(build_model(task), shape).to(self.device)
        self.start = {k: torch.from_numpy(v.copy()) for k, v in task.weights.items()}
        self._before = _resident()

    @abc.abstractmethod
    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """Trains for one epoch; the mean loss."""

    def make_optimizer(self) -> Any:
        """Adam, as the contender has it."""
        import torch

        return torch.optim.Adam(self.vae.parameters(), LEARNING_RATE, fused=True)

    def take_turn(self) -> Turn:
        """Sets the weights back and trains."""
        import torch

        torch.manual_seed(SEED)
        began = time.perf_counter()
        self.vae.load_state_dict(self.start, strict=False)  # no counts of batches
        optimizer = self.make_optimizer()
        seconds = []
        assert self.task.orders is not None
        for order in self.task.orders:
            epoch_began = time.perf_counter()
            loss = self.run_epoch(order, optimizer)  # a number: all work is done
            seconds.append(time.perf_counter() - epoch_began)
        wall = time.perf_counter() - began
        return Turn(statistics.median(seconds), wall, loss)

    def memory(self) -> int:
        """Of the device; on a CPU of the process, beyond what it began with."""
        import torch

        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return _resident() - self._before


class TorchTutorial(TorchContender):
    """Dataset and DataLoader, sigmoid and binary cross-entropy, ``.item()``."""

    def make_optimizer(self) -> Any:
        """Adam with PyTorch's defaults."""
        import torch

        return torch.optim.Adam(self.vae.parameters(), LEARNING_RATE)

    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """As in `train_like_a_tutorial`."""
        from experiments.torch_loops import make_loader, train_like_a_tutorial

        images = self.task.images[..., 0]
        loader = make_loader(images, self.task.batch_size, order.tolist())
        with torch_precision(self.task.precision, self.device):
            total = train_like_a_tutorial(self.vae, loader, optimizer, self.device)
        return total / len(images)


class TorchTuned(TorchContender):
    """Images on the device as floats, logits, fused Adam, no synchronisation."""

    def __init__(self, task: Task) -> None:
        import torch

        super().__init__(task)
        images = torch.from_numpy(np.array(self.task.images)).permute(0, 3, 1, 2)
        self.images = images.to(self.device).float().contiguous() / 255

    def loss_of(self, x: Any) -> Any:
        """The loss of a batch."""
        from experiments.torch_networks import negative_elbo

        with torch_precision(self.task.precision, self.device):
            logits, mean, log_var = self.vae(x)
            return negative_elbo(logits, x, mean, log_var)

    def run_epoch(self, order: np.ndarray, optimizer: Any) -> float:
        """As in `train_tuned`."""
        import torch

        from experiments.torch_loops import train_tuned

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


def check_agreement(task: Task) -> Agreement:
    """The first losses and gradients of both libraries, with the same noise.

    Args:
      task: its images are `CHECKED_BATCHES` batches.
    """
    import jax
    import jax.numpy as jnp
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from experiments.torch_networks import TorchVAE, negative_elbo
    from flaxvae import training
    from flaxvae.interop import to_torch
    from flaxvae.objectives import elbo

    set_jax_precision(task.precision)
    set_torch_precision(task.precision)
    model, dataset = build_model(task), as_dataset(task.images)
    program = training.make_program(
        model, dataset, elbo, training.adam(), batch_size=task.batch_size
    )
    state = program.create(SEED, {"beta": 1.0}).state
    shape = task.images.shape[1:]
    variables = {"params": state.params, **state.collections}
    weights = to_torch(variables, model, shape)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    twin = TorchVAE(model, shape).to(device)
    twin.load_state_dict(weights, strict=False)
    counter = FlopCounterMode(display=False)

    @jax.jit
    def compute(params: Any, x: jax.Array, key: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            terms, _ = model.apply(
                variables | {"params": params},
                x,
                key=key,
                method=elbo,
                mutable=list(state.collections),
            )
            return terms["loss"].mean()

        return jax.value_and_grad(loss)(params)

    def compare(x: np.ndarray, key: jax.Array) -> tuple[float, float]:
        our_loss, grads = compute(state.params, jnp.asarray(x), key)
        ours = to_torch({"params": grads}, model, shape)
        eps = jax.random.normal(key, (len(x), model.posterior.latent_dim))
        images = torch.from_numpy(x).permute(0, 3, 1, 2).to(device)
        twin.zero_grad()
        with counter:
            with torch_precision(task.precision, device):
                logits, *moments = twin(images, torch.tensor(np.array(eps)).to(device))
                their_loss = negative_elbo(logits, images, *moments)
            their_loss.backward()
        theirs = {
            name: p.grad.cpu()
            for name, p in twin.named_parameters()
            if p.grad is not None
        }
        largest = max(float(grad.abs().max()) for grad in theirs.values())
        apart = max(float((ours[n] - theirs[n]).abs().max()) for n in theirs)
        return abs(float(our_loss) / their_loss.item() - 1), apart / largest

    batches = np.split(np.asarray(task.images, np.float32) / 255, CHECKED_BATCHES)
    # Where the input of a ReLU rounds to zero on one side only, one batch's gradient
    # differs by an example's: the median is not moved by that.
    keys = jax.random.split(jax.random.key(SEED), CHECKED_BATCHES)
    found = [compare(x, key) for x, key in zip(batches, keys, strict=True)]
    loss, gradient = (statistics.median(column) for column in zip(*found, strict=True))
    return Agreement(
        loss,
        gradient,
        float(counter.get_total_flops()),  # of the last batch
        {name: tensor.numpy() for name, tensor in weights.items()},
    )


def compute_orders(num_images: int, epochs: int) -> np.ndarray:
    """The order in which `fit` sees the images: int64 ``(epochs, num_images)``."""
    import jax

    from flaxvae.training import Stream, stream_key

    root = jax.random.key(SEED)
    orders = [
        jax.random.permutation(stream_key(root, Stream.SHUFFLE, epoch), num_images)
        for epoch in range(epochs)
    ]
    return np.stack(orders).astype(np.int64)


def measure_jax_matmul(precision: str) -> float:
    """Rate of a large matrix product in JAX, in FLOP/s."""
    import jax
    import jax.numpy as jnp

    set_jax_precision(precision)
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    a = jnp.ones((MATMUL_SIZE, MATMUL_SIZE), dtype)
    product = jax.jit(jnp.matmul)
    return _measure_rate(lambda: jax.block_until_ready(product(a, a)))


def measure_torch_matmul(precision: str, threads: int) -> float:
    """Rate of a large matrix product in PyTorch, in FLOP/s."""
    import torch

    torch.set_num_threads(threads)
    set_torch_precision(precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.ones((MATMUL_SIZE, MATMUL_SIZE), dtype=dtype, device=device)
    return _measure_rate(lambda: (a @ a)[0, 0].item())


def _measure_rate(product: Callable[[], Any]) -> float:
    product()
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < MATMUL_SECONDS:
        product()
        count += 1
    return count * 2 * MATMUL_SIZE**3 / spent


def describe_machine() -> dict[str, Any]:
    """Versions and the device that trains."""
    import platform

    import torch

    from flaxvae.training.environment import describe_environment

    found = describe_environment()
    found["versions"] |= {"torch": torch.__version__}
    found["processor"] = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if "model name" in line]
        found["processor"] = names[0].split(":")[1].strip() if names else "unknown"
    found["gpu"] = is_on_gpu()
    return found


def is_on_gpu() -> bool:
    """Whether JAX trains on a GPU."""
    import jax

    return jax.default_backend() == "gpu"


def build_model(task: Task) -> Any:
    """The preset's model."""
    from experiments.presets import PRESETS

    dtype = "bfloat16" if task.precision == "bfloat16" else "float32"
    return PRESETS[task.preset].build(task.images.shape[1:], dtype=dtype)


def as_dataset(images: np.ndarray) -> Any:
    """The images as a training split; nothing is held out."""
    from flaxvae.data import Dataset, Split

    split = Split(images)
    return Dataset("images", split, split[:0], split[:0], max_value=255.0)


def set_jax_precision(precision: str) -> None:
    """Products in float32, or as the accelerator likes them best."""
    import jax

    value = {"float32": "highest", "tf32": "tensorfloat32"}.get(precision, "default")
    jax.config.update("jax_default_matmul_precision", value)


def set_torch_precision(precision: str) -> None:
    """The same for PyTorch."""
    import torch

    allowed = precision != "float32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def torch_precision(precision: str, device: str) -> Any:
    """A context in which PyTorch computes in bfloat16, if that is asked for."""
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def _resident() -> int:
    """Most bytes that the process has held."""
    import platform

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
