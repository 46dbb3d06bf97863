"""The settings of a VAE with several levels of latent variables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from flax import linen as nn

from flaxvae.checks import InputError
from flaxvae.models.data_spec import DataSpec, as_shape
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.models.likelihood import (
    LikelihoodConfig,
    build_part,
    feature_shape,
    fields_of,
)
from flaxvae.nn.layers import Activation, Dtype
from flaxvae.nn.levels import Inference, MLPLevels
from flaxvae.nn.priors import PRIORS, PriorFlow, TopVampPrior
from flaxvae.settings import setting

LevelNetworkName = Literal["mlp"]
NETWORKS: dict[LevelNetworkName, type[nn.Module]] = {"mlp": MLPLevels}
TopPrior = Literal["normal", "mixture", "vamp", "flow"]
TOP_PRIORS: dict[TopPrior, type[nn.Module]] = {
    name: TopVampPrior if name == "vamp" else PRIORS[name]
    for name in get_args(TopPrior)
}
DEPTH = 2  # levels of an mlp
LATENT_DIM = 32  # of each of them
OF_MLP = {"network": "mlp"}
OF_SEVERAL = ("level_hidden", "inference", "decoder_skip")  # levels


@dataclass(frozen=True, kw_only=True)
class HierarchicalConfig(LikelihoodConfig):
    """A VAE with several levels of latent variables as settings.

    Levels are numbered from the top, which is farthest from the data: its prior is
    ``prior``, and each other level's prior depends on the levels above it.

    The two-layer networks of Burda et al. (arXiv 1509.00519), and the two-level HVAE of
    Tomczak and Welling (arXiv 1705.07120):

      >>> burda = HierarchicalConfig(
      ...     latent_dims=(50, 100), hidden=(200, 200), level_hidden=(100, 100),
      ...     inference="bottom_up", activation="tanh",
      ... )
      >>> burda.describe_network((28, 28, 1))
      '784-200-200-z100-100-100-z50'
      >>> tomczak = HierarchicalConfig(
      ...     latent_dims=40, hidden=(300, 300), level_hidden=(300, 300),
      ...     inference="top_down", activation="glu", decoder_skip=True, prior="vamp",
      ... )
      >>> tomczak.describe_network((28, 28, 1))
      '784-300-300-z40-300-300-z40'

    Raises:
      InputError: a value out of range, or a field that changes nothing.
    """

    network: LevelNetworkName = "mlp"
    """Multilayer perceptron."""
    depth: int | None = setting(None, at_least=1)
    """Number of levels. Default: as many as latent_dims, or 2."""
    latent_dims: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_MLP)
    """Dimensions of each level, top level first, or of all (32)."""
    hidden: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_MLP)
    """Widths of the dense layers between the data and the last level (256 256)."""
    level_hidden: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_MLP)
    """Widths of the dense layers between two levels (256)."""
    inference: Inference = setting("ladder", needs=OF_MLP)
    """Levels of q(z|x) are drawn from the data upwards (arXiv 1509.00519), from the top
    downwards (1705.07120), or so with the prior as a factor (1602.02282)."""
    decoder_skip: bool = setting(False, needs=OF_MLP)
    """The decoder sees all levels, not the last alone."""
    activation: Activation | None = None
    """Activation function (relu); glu gates the layers, as in arXiv 1705.07120."""
    negative_slope: float | None = setting(
        None, needs={**OF_MLP, "activation": "leaky_relu"}
    )
    """Slope of leaky_relu below 0 (0.01)."""
    normalization: Literal["none", "layer", "group"] | None = setting(
        None, needs=OF_MLP
    )
    """Normalization before each activation (none)."""
    dtype: Dtype = "float32"
    """Precision of the networks; parameters and losses are always float32."""

    prior: TopPrior = "normal"
    """Prior of the top level: N(0, I), mixture of normals, VampPrior (arXiv
    1705.07120), or flow (1605.08803)."""
    prior_components: int | None = setting(
        None, at_least=1, part="prior", field="num_components"
    )
    """Components of the mixture (10), pseudo-inputs of the VampPrior (500)."""
    prior_flow: PriorFlow | None = setting(None, part="prior", field="flow")
    """Layers of the flow: affine coupling, or masked autoregressive (coupling)."""
    prior_flows: int | None = setting(None, at_least=1, part="prior", field="num_flows")
    """Number of layers of the flow (4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settings_of("prior", self.prior, fields_of(TOP_PRIORS[self.prior]))
        if self.network == "mlp":
            self._check_mlp()

    def _check_mlp(self) -> None:
        dims = self._latent_dims
        if self.depth not in (None, len(dims)):
            raise InputError(
                f"latent_dims must be one number or one for each of {self.depth} "
                f"levels (depth), got {' '.join(map(str, dims))}"
            )
        for name in OF_SEVERAL:
            value = getattr(self, name)
            if len(dims) == 1 and value not in (None, False, "ladder"):
                shown = " ".join(map(str, value)) if name == "level_hidden" else value
                raise InputError(
                    f"{name} must be left out for a single level, got {shown}"
                )
        if self.prior == "vamp" and self.inference == "bottom_up":
            raise InputError(
                "inference must be top_down or ladder for the prior vamp, which mixes "
                "posteriors of the top level, got bottom_up"
            )
        has_layers = self.hidden != () or (len(dims) > 1 and self.level_hidden != ())
        for name in ("activation", "normalization"):
            if not has_layers and getattr(self, name) not in (None, "none"):
                raise InputError(
                    f"{name} must be left out without layers (hidden, level_hidden), "
                    f"got {getattr(self, name)}"
                )

    @property
    def _latent_dims(self) -> tuple[int, ...]:
        """D of each level, top level first."""
        dims = self.latent_dims or (LATENT_DIM,)
        if self.latent_dims is None or (len(dims) == 1 and self.depth is not None):
            return dims * (self.depth or DEPTH)
        return dims

    def build(
        self, dataset: Any, *, likelihood: nn.Module | None = None
    ) -> HierarchicalVAE:
        """The model for a data set.

        Args:
          dataset: a `flaxvae.data.Dataset`, whose shape and levels determine the model.
          likelihood: your own module in place of the named one; see `build_vae`.

        Raises:
          InputError: settings that do not suit the data.
        """
        data = DataSpec.of(dataset)
        values = self.resolve(data)
        if likelihood is None:
            likelihood = self.build_likelihood(data, values)
            self._check_unused([type(likelihood)])
        else:
            self._check_unused([])
        network = self._build_network(feature_shape(likelihood, data.shape))
        kind = TOP_PRIORS[self.prior]
        top = build_part(
            kind,
            {
                "latent_dim": network.latent_dims[0],
                "data_shape": data.shape,
                "bounded": not data.is_real,
                **self._settings_of("prior", self.prior, fields_of(kind)),
            },
        )
        return HierarchicalVAE(network, top, likelihood)

    def _build_network(self, output_shape: tuple[int, ...]) -> MLPLevels:
        names = fields_of(MLPLevels)
        stated = {
            name: value
            for name in names & self.__dataclass_fields__.keys()
            if (value := getattr(self, name)) is not None
        }
        stated |= {"latent_dims": self._latent_dims, "output_shape": output_shape}
        return MLPLevels(**stated)

    def describe_network(self, data_shape: int | Sequence[int]) -> str:
        """Sizes from the data to the top, such as ``784-256-256-z32-256-z32``."""
        network = self._build_network(DataSpec(as_shape(data_shape)).shape)
        *upper, last = network.latent_dims
        sizes = [math.prod(network.output_shape), *network.hidden, f"z{last}"]
        for D in upper[::-1]:
            sizes += [*network.level_hidden, f"z{D}"]
        return "-".join(map(str, sizes))
