"""Import and export of PyTorch weights."""

from flaxvae.interop.names import ARCHITECTURES
from flaxvae.interop.weights import from_torch, to_torch

__all__ = ["ARCHITECTURES", "from_torch", "to_torch"]
