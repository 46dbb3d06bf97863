"""Time an epoch of the MLP VAE in flaxvae and in PyTorch, side by side.

    pip install -e ".[torch]"
    python -m experiments.benchmark_pytorch --data_dir=FOLDER_WITH_MNIST

The contenders take turns (A B C A B C ...), so that a machine whose speed drifts
favours none; medians are compared. flaxvae runs through the ordinary `fit`; compiling
is timed apart.
"""

import dataclasses
import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import flaxvae
from experiments.command import run_command
from flaxvae import InputError, training
from flaxvae.checks import check_at_least
from flaxvae.data import Dataset, Split
from flaxvae.models import build_vae

LEARNING_RATE = 1e-3
MATMUL_SIZE = 2048  # rows and columns of the product that measures the machine


@dataclass(frozen=True)
class Flags:
    """Times training epochs of one MLP VAE in flaxvae and in PyTorch on the CPU."""

    data_dir: Path | None = None
    """Folder with MNIST's IDX files; None: MNIST where at hand, else random images."""
    num_images: int = 60_000
    """Training images in an epoch; as many as there are, if that is fewer."""
    hidden: tuple[int, ...] = (400,)
    """Widths of the encoder's dense layers; the decoder has them in reverse."""
    latent_dim: int = 20
    """Number of latent dimensions."""
    batch_size: int = 128
    """Images in a training step."""
    repeats: int = 5
    """Turns of each contender."""
    epochs: int = 3
    """Epochs in a turn; a turn counts with its median epoch."""
    threads: int = os.cpu_count() or 1
    """Threads for PyTorch; JAX uses every core it is given."""


def main(flags: Flags) -> None:
    """Lets the contenders take turns and prints a table."""
    for name in ("latent_dim", "batch_size", "repeats", "epochs", "threads"):
        check_at_least(name, getattr(flags, name), 1)
    check_at_least("num_images", flags.num_images, flags.batch_size)
    check_at_least("number of hidden layers", len(flags.hidden), 1)
    if importlib.util.find_spec("torch") is None:
        raise InputError('PyTorch must be installed: pip install -e ".[torch]"')
    dataset = load_images(flags)
    contenders: dict[str, Callable[[], float]] = {
        "flaxvae": make_flaxvae(dataset, flags),
        "PyTorch, tuned": make_torch(dataset, flags, tuned=True),
        "PyTorch, tutorial": make_torch(dataset, flags, tuned=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    rates = []
    for turn in range(flags.repeats):
        rates.append(measure_matmul())
        for name, run in contenders.items():
            seconds[name].append(run())
            print(
                f"turn {turn + 1}, {name}: {seconds[name][-1]:.3f} s", file=sys.stderr
            )
    print_table(seconds, dataset, statistics.median(rates), flags)


def load_images(flags: Flags) -> Dataset:
    """MNIST without a validation split, or random images in its place."""
    N = flags.num_images
    try:
        data = flaxvae.data.load("mnist", data_dir=flags.data_dir, validation_size=0)
        return dataclasses.replace(data, train=data.train[:N])
    except InputError:
        if flags.data_dir is not None:
            raise
    images = np.random.default_rng(0).integers(0, 256, (N, 28, 28, 1), np.uint8)
    split = Split(images)
    return Dataset("random images", split, split[:0], split[:1000], max_value=255.0)


def make_flaxvae(dataset: Dataset, flags: Flags) -> Callable[[], float]:
    """Trains by `fit`; returns seconds an epoch, compiling excluded."""
    vae = build_vae(dataset.shape, flags.latent_dim, hidden=flags.hidden)

    def run() -> float:
        trained = training.fit(
            vae,
            dataset,
            optimizer=training.adam(LEARNING_RATE),
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            progress=False,
        )
        return trained.timing["seconds_per_epoch"]

    return run


def make_torch(dataset: Dataset, flags: Flags, *, tuned: bool) -> Callable[[], float]:
    """Trains the same network in PyTorch; returns seconds an epoch.

    Tuned: images in memory as floats, logits, fused Adam, no synchronisation in a
    step. Otherwise as tutorials write it: torchvision's MNIST with ToTensor in a
    DataLoader, sigmoid and binary cross-entropy, ``.item()`` each step.
    """
    import PIL.Image
    import torch
    from torch.nn import functional

    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    height, width, _ = dataset.shape
    num_pixels = height * width
    images = torch.from_numpy(np.array(dataset.train.x)).reshape(-1, num_pixels)

    def dense_layers(widths: tuple[int, ...]) -> Any:
        pairs = itertools.pairwise(widths)
        layers = [(torch.nn.Linear(i, o), torch.nn.ReLU()) for i, o in pairs]
        return torch.nn.Sequential(*(part for layer in layers for part in layer))

    class VAE(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = dense_layers((num_pixels, *flags.hidden))
            self.mean = torch.nn.Linear(flags.hidden[-1], flags.latent_dim)
            self.log_var = torch.nn.Linear(flags.hidden[-1], flags.latent_dim)
            self.decoder = dense_layers((flags.latent_dim, *flags.hidden[::-1]))
            self.output = torch.nn.Linear(flags.hidden[0], num_pixels)

        def forward(self, x: Any) -> Any:
            h = self.encoder(x)
            mean, log_var = self.mean(h), self.log_var(h)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            return self.output(self.decoder(z)), mean, log_var

    vae = VAE()
    optimizer = torch.optim.Adam(vae.parameters(), LEARNING_RATE, fused=tuned or None)

    def tuned_epoch() -> None:
        order = torch.randperm(len(floats))
        for batch in order.split(flags.batch_size):
            x = floats[batch]
            logits, mean, log_var = vae(x)
            loss = functional.binary_cross_entropy_with_logits(
                logits, x, reduction="sum"
            )
            loss = loss - 0.5 * torch.sum(1 + log_var - mean.square() - log_var.exp())
            optimizer.zero_grad(set_to_none=True)
            (loss / len(x)).backward()
            optimizer.step()

    def tutorial_epoch() -> None:
        total = 0.0
        for x, _ in loader:
            x = x.view(-1, num_pixels)
            logits, mean, log_var = vae(x)
            loss = functional.binary_cross_entropy(
                torch.sigmoid(logits), x, reduction="sum"
            )
            loss = loss - 0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            optimizer.zero_grad()
            loss.backward()
            total += loss.item()
            optimizer.step()

    if tuned:
        floats, epoch = images.float() / 255, tuned_epoch
    else:
        # Step by step what torchvision's MNIST does with the transform ToTensor.
        class Images(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(images)

            def __getitem__(self, i: int) -> Any:
                picture = PIL.Image.fromarray(images[i].numpy().reshape(height, width))
                pixels = torch.from_numpy(np.array(picture)).view(height, width, 1)
                return pixels.permute(2, 0, 1).contiguous().float().div(255), 0

        loader = torch.utils.data.DataLoader(
            Images(), batch_size=flags.batch_size, shuffle=True
        )
        epoch = tutorial_epoch

    def run() -> float:
        seconds = []
        for _ in range(flags.epochs):
            began = time.perf_counter()
            epoch()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    return run


def measure_matmul() -> float:
    """Rate of a large float32 matrix product in JAX, in FLOP/s."""
    a = jnp.ones((MATMUL_SIZE, MATMUL_SIZE))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    began = time.perf_counter()
    for _ in range(5):
        jax.block_until_ready(product(a, a))
    return 5 * 2 * MATMUL_SIZE**3 / (time.perf_counter() - began)


def count_flops(dataset: Dataset, flags: Flags) -> float:
    """Floating-point operations of an epoch's matrix products.

    Forward, gradient of the weights and gradient of the inputs cost 2 operations a
    weight and example each; the first layer needs no gradient of its inputs.
    """
    widths = (int(np.prod(dataset.shape)), *flags.hidden)
    layers = [i * o for i, o in itertools.pairwise(widths)]
    heads = 3 * flags.hidden[-1] * flags.latent_dim  # mean, log_var, decoder's first
    weights = 2 * sum(layers) + heads
    return (6 * weights - 2 * layers[0]) * float(len(dataset.train))


def print_table(
    seconds: dict[str, list[float]], dataset: Dataset, rate: float, flags: Flags
) -> None:
    """Prints medians, spreads and ratios."""
    import torch
    from rich.console import Console
    from rich.table import Table

    ours = statistics.median(seconds["flaxvae"])
    share = count_flops(dataset, flags) / ours / rate
    widths = (int(np.prod(dataset.shape)), *flags.hidden, flags.latent_dim)
    network = "-".join(map(str, widths))
    title = f"Seconds an epoch, {dataset.name}, {network}, batch {flags.batch_size}"
    table = Table(title=title)
    for name in ("", "median", "min", "max", "time over flaxvae's"):
        table.add_column(name, justify="left" if not name else "right")
    for name, values in seconds.items():
        median = statistics.median(values)
        row = [f"{v:.3f}" for v in (median, min(values), max(values))]
        table.add_row(name, *row, f"{median / ours:.2f}")
    Console().print(table)
    print(
        f"matrix product of {MATMUL_SIZE}: {rate / 1e9:.0f} GFLOP/s; flaxvae reaches "
        f"{share:.0%} of it\n"
        f"{flags.repeats} turns, {flags.threads} threads, {training.device_name()}, "
        f"JAX {jax.__version__}, PyTorch {torch.__version__}"
    )


if __name__ == "__main__":
    run_command(main, Flags)
