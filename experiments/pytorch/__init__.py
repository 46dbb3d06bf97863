"""The comparison with PyTorch: `benchmark` is the command."""
