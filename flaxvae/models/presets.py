"""Models by name, for benchmarks and for trying devices and compilers."""

from flaxvae.models.hierarchical_config import HierarchicalConfig
from flaxvae.models.vae import VAEConfig

# Paddings are numbers, so that PyTorch has the same networks.
PRESETS: dict[str, VAEConfig] = {
    "mlp": VAEConfig(latent_dim=20, hidden=(400,)),
    "mlp-deep": VAEConfig(latent_dim=20, hidden=(256, 256)),
    "mlp-binary": VAEConfig(latent_dim=50, hidden=(200, 200), activation="tanh"),
    "conv": VAEConfig(latent_dim=20, encoder="conv", padding=1),
    "conv-batchnorm": VAEConfig(
        latent_dim=32,
        encoder="conv",
        filters=(32, 64, 128),
        padding=1,
        normalization="batch",
        activation="leaky_relu",
        negative_slope=0.2,
    ),
    "resnet": VAEConfig(
        latent_dim=32,
        encoder="resnet",
        padding=1,
        normalization="batch",
        activation="silu",
    ),
}

LEVEL_PRESETS: dict[str, HierarchicalConfig] = {
    "ladder": HierarchicalConfig(latent_dims=(16, 32)),
    "top-down": HierarchicalConfig(network="conv", depth=2, width=32),
}
