"""A VAE on MNIST in PyTorch, as tutorials write it; the benchmark runs it.

    python -m experiments.pytorch.tutorial FOLDER_WITH_MNIST 10

It prints the loss of each epoch and the test loss.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.pytorch.loops import make_loader, train_like_a_tutorial


class VAE(nn.Module):
    """An MLP 784-400-20."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, means and log-variances of a batch of images."""
        h = functional.relu(self.fc1(x.view(-1, 784)))
        mean, log_var = self.fc21(h), self.fc22(h)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        logits = self.fc4(functional.relu(self.fc3(z)))
        return logits.view(-1, 1, 28, 28), mean, log_var


def read_images(folder: Path, name: str) -> np.ndarray:
    """The images of one of MNIST's files, gzipped or not: uint8 ``(N, 28, 28)``."""
    path = folder / f"{name}-images-idx3-ubyte"
    if path.exists():
        content = path.read_bytes()
    else:
        with gzip.open(f"{path}.gz") as file:
            content = file.read()
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def main(folder: Path, epochs: int) -> None:
    """Trains, and prints the loss of each epoch and the test loss."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    images, test_images = read_images(folder, "train"), read_images(folder, "t10k")
    loader, test_loader = make_loader(images, 128), make_loader(test_images, 128)
    vae = VAE().to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for epoch in range(epochs):
        vae.train()
        total = train_like_a_tutorial(vae, loader, optimizer, device)
        print(f"epoch {epoch + 1}: train loss {total / len(images):.2f}", flush=True)
    vae.eval()
    total = 0.0
    with torch.no_grad():
        for x, _ in test_loader:
            x = x.to(device)
            logits, mean, log_var = vae(x)
            total += functional.binary_cross_entropy(
                torch.sigmoid(logits), x, reduction="sum"
            ).item()
            kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            total += kl.item()
    print(f"test loss {total / len(test_images):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
