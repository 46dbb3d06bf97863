"""Import and export of PyTorch weights."""

from flaxvae.interop.architectures import ARCHITECTURES
from flaxvae.interop.importing import import_torch, infer_config
from flaxvae.interop.weights import from_torch, to_torch

__all__ = ["ARCHITECTURES", "from_torch", "import_torch", "infer_config", "to_torch"]
