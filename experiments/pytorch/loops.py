"""Training loops in PyTorch: as tutorials write them, and tuned."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.nn import functional


class Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """The same items as torchvision's MNIST with ToTensor, computed step by step.

    Args:
      images: uint8 ``(N, H, W)``.
    """

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(np.array(images))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        picture = PIL.Image.fromarray(self.images[i].numpy())
        height, width = picture.height, picture.width
        pixels = torch.from_numpy(np.array(picture)).view(height, width, 1)
        return pixels.permute(2, 0, 1).contiguous().float().div(255), 0


def make_loader(
    images: np.ndarray, batch_size: int, order: Sequence[int] | None = None
) -> Any:
    """Batches of `Pictures` in the order of indices, or reshuffled in each epoch."""
    return torch.utils.data.DataLoader(
        Pictures(images), batch_size, shuffle=order is None, sampler=order
    )


def train_like_a_tutorial(
    vae: torch.nn.Module,
    loader: Iterable[Sequence[Any]],
    optimizer: torch.optim.Optimizer,
    device: str = "cpu",
) -> float:
    """Trains for one epoch.

    Args:
      vae: maps images to logits, means and log-variances.
      loader: batches of images and labels.
      optimizer: of the parameters of ``vae``.
      device: where they are.

    Returns:
      The loss summed over all images, in nats.
    """
    total = 0.0
    for x, _ in loader:
        x = x.to(device)
        logits, mean, log_var = vae(x)
        loss = functional.binary_cross_entropy(
            torch.sigmoid(logits), x, reduction="sum"
        )
        loss = loss - 0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        optimizer.zero_grad()
        loss.backward()
        total += loss.item()
        optimizer.step()
    return total


def train_tuned(
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[torch.Tensor],
    images: torch.Tensor,
    optimizer: torch.optim.Optimizer,
) -> float:
    """Trains for one epoch on images in memory, without synchronization in a step.

    Args:
      loss_of: maps a batch of images to its loss.
      batches: indices of the images of each batch.
      images: all images, on the device.
      optimizer: of the parameters that ``loss_of`` uses.

    Returns:
      The mean loss of the batches.
    """
    losses = []
    for index in batches:
        loss = loss_of(images[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        # A CUDA graph writes its next loss into the same memory.
        losses.append(loss.detach().clone())
    return torch.stack(losses).mean().item()
