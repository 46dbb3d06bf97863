"""The settings of a VAE with several levels of latent variables."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

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
from flaxvae.nn.top_down import TopDownLevels
from flaxvae.nn.top_down_blocks import grid_sizes
from flaxvae.settings import setting

LevelNetwork = Literal["mlp", "conv"]
TopPrior = Literal["normal", "mixture", "vamp", "flow"]
TOP_PRIORS: dict[TopPrior, type[nn.Module]] = {
    name: TopVampPrior if name == "vamp" else PRIORS[name]
    for name in get_args(TopPrior)
}
DEPTH = 2  # levels of an mlp
LATENT_DIM = 32  # of each of them
PER_GRID = 2  # levels of a convolutional network on each grid
OF_MLP, OF_CONV = {"network": "mlp"}, {"network": "conv"}
CONV_NAMES = {"width": "widths"}  # of its fields that have other names in the network
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
      ...     activation="glu", decoder_skip=True, prior="vamp",
      ... )
      >>> tomczak.describe_network((28, 28, 1))
      '784-300-300-z40-300-300-z40'

    Raises:
      InputError: a value out of range, or a field that changes nothing.
    """

    network: LevelNetwork = "mlp"
    """Multilayer perceptron, or top-down convolutional network (arXiv 2011.10650)."""
    depth: int | tuple[int, ...] | None = setting(None, at_least=1)
    """mlp: number of levels (as many as latent_dims, or 2). conv: levels on each grid,
    or one number per grid (2)."""
    latent_dims: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_MLP)
    """Dimensions of each level, top level first, or of all (32)."""
    hidden: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_MLP)
    """Widths of the dense layers between the data and the last level (256 256)."""
    level_hidden: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_MLP)
    """Widths of the dense layers between two levels (256)."""
    inference: Inference = setting("top_down", needs=OF_MLP)
    """Levels of q(z|x) are drawn from the data upwards (arXiv 1509.00519), from the top
    downwards (1705.07120), or so with the prior as a factor (1602.02282)."""
    decoder_skip: bool = setting(False, needs=OF_MLP)
    """The decoder sees all levels, not the last alone."""
    groups: tuple[int, ...] | None = setting(None, at_least=1, needs=OF_CONV)
    """conv: rows of the grids of latent variables, coarsest first, such as 1 4 7 14.
    Default: 1, and the image's rows halved again and again, from 4 rows on."""
    width: int | tuple[int, ...] | None = setting(None, at_least=1, needs=OF_CONV)
    """conv: channels on all grids, or one number per grid (64)."""
    latent_channels: int | tuple[int, ...] | None = setting(
        None, at_least=1, needs=OF_CONV
    )
    """conv: latent dimensions at each place of a grid, or one number per grid (16)."""
    bottleneck: int | None = setting(None, at_least=1, needs=OF_CONV)
    """conv: factor by which a residual block reduces its channels (4)."""
    encoder_blocks: tuple[int, ...] | None = setting(None, at_least=0, needs=OF_CONV)
    """conv: residual blocks of the encoder on each grid. Default: as many as levels."""
    remat: bool = setting(False, needs=OF_CONV)
    """conv: compute activations again for the gradient: less memory, more time."""
    activation: Activation | None = None
    """Activation function (silu); glu gates the layers of an mlp, as in arXiv
    1705.07120."""
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
        elif self.activation == "glu":
            raise InputError("activation must not be glu unless network is mlp")

    def _check_mlp(self) -> None:
        if isinstance(self.depth, tuple):
            raise InputError(
                "depth must be one number unless network is conv, got "
                f"{' '.join(map(str, self.depth))}"
            )
        if self.latent_dims == ():
            raise InputError("latent_dims must have a value, got none")
        dims = self._latent_dims
        if self.depth not in (None, len(dims)):
            raise InputError(
                f"latent_dims must be one number or one for each of {self.depth} "
                f"levels (depth), got {' '.join(map(str, dims))}"
            )
        for name in OF_SEVERAL:
            value = getattr(self, name)
            if len(dims) == 1 and value not in (None, False, "top_down"):
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
        dims = (LATENT_DIM,) if self.latent_dims is None else self.latent_dims
        if len(dims) > 1:
            return dims
        return dims * (self.depth if isinstance(self.depth, int) else DEPTH)

    def build(
        self, dataset: object, *, likelihood: nn.Module | None = None
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
        network = self._build_network(data, feature_shape(likelihood, data.shape))
        kind = TOP_PRIORS[self.prior]
        top = build_part(
            kind,
            {
                "latent_dim": network.top_dim,
                "data_shape": data.shape,
                "bounded": not data.is_real,
                **self._settings_of("prior", self.prior, fields_of(kind)),
            },
        )
        return HierarchicalVAE(network, top, likelihood)

    def _build_network(
        self, data: DataSpec, output_shape: tuple[int, ...]
    ) -> MLPLevels | TopDownLevels:
        stated = {
            CONV_NAMES.get(field.name, field.name): value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        stated["output_shape"] = output_shape
        if self.network == "mlp":
            return build_part(MLPLevels, {**stated, "latent_dims": self._latent_dims})
        if data.is_real:
            raise InputError(
                "network must be mlp for rows and series, which are not images, got "
                "conv"
            )
        grids = self._choose_grids(*data.shape[:2])
        for name in ("depth", "width", "latent_channels", "encoder_blocks"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(grids):
                raise InputError(
                    f"{name} must be one number for each of {len(grids)} grids "
                    f"(groups), got {' '.join(map(str, value))}"
                )
        blocks = PER_GRID if self.depth is None else self.depth
        blocks = (blocks,) * len(grids) if isinstance(blocks, int) else blocks
        stated |= {"grids": grids, "blocks": blocks}
        network = build_part(TopDownLevels, stated)
        network.check()
        return network

    def _choose_grids(self, H: int, W: int) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each grid for images of H rows and W columns."""
        *coarser, finest = grid_sizes((H, W))
        if self.groups is None:
            return tuple(coarser) or (finest,)
        known = {rows: (rows, columns) for rows, columns in (*coarser, finest)}
        if list(self.groups) != sorted({*self.groups}):
            raise InputError(
                "groups must rise from the coarsest grid to the finest, got "
                f"{' '.join(map(str, self.groups))}"
            )
        grids = []
        for rows in self.groups:
            if rows not in known and H != W:
                raise InputError(
                    f"groups must be among {', '.join(map(str, known))} for images of "
                    f"{H} x {W}, got {rows}"
                )
            grids.append(known.get(rows, (rows, rows)))
        return tuple(grids)

    def describe_network(self, data_shape: int | Sequence[int]) -> str:
        """Sizes from the data to the top, such as ``784-256-256-z32-256-z32``.

        Of a convolutional network the levels on each grid: ``conv 64, 2 x 1x1 + 2 x
        4x4``.
        """
        data = DataSpec(as_shape(data_shape))
        network = self._build_network(data, data.shape)
        if isinstance(network, TopDownLevels):
            counts = zip(network.blocks, network.sizes, strict=True)
            groups = [
                f"{count} x {rows}x{columns}" for count, (rows, columns) in counts
            ]
            widths = network.widths
            widths = (widths,) if isinstance(widths, int) else widths
            return f"conv {'-'.join(map(str, widths))}, {' + '.join(groups)}"
        *upper, last = network.latent_dims
        sizes = [math.prod(network.output_shape), *network.hidden, f"z{last}"]
        for D in upper[::-1]:
            sizes += [*network.level_hidden, f"z{D}"]
        return "-".join(map(str, sizes))
