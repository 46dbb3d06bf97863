"""Variational autoencoders with several levels of latent variables."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
from flax.typing import VariableDict

from flaxvae.capabilities import PriorInitializedFromData
from flaxvae.distributions import Distribution
from flaxvae.distributions.levels import Codes, Draws, LevelPosterior, LevelPrior


class HierarchicalVAE(nn.Module):
    """A VAE with L levels of latent variables; see `flaxvae.distributions.levels`.

    Its codes are `Codes`; objectives, evaluation and figures take it as they take a
    `VAE`.

    Source: Sonderby et al., "Ladder Variational Autoencoders", 2016, arXiv 1602.02282;
    Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on
    Images", 2020, arXiv 2011.10650.
    """

    has_levels: ClassVar[bool] = True

    network: nn.Module  # see `flaxvae.nn.levels`
    top: nn.Module  # () -> p(z_1), the prior of the top level
    likelihood: nn.Module  # array (..., H, W, C) -> p(x|z) over (H, W, C)

    def encode(self, x: jax.Array) -> LevelPosterior:
        """q(z|x) for a batch ``(B, H, W, C)``."""
        features, top = self.network.bottom_up(x), self.top()
        if self.is_initializing():
            self.network.draw(features, top)
        return LevelPosterior(features, top, *self._parts())

    def encode_top(self, x: jax.Array) -> Distribution:
        """q(z_1|x) of the top level, which a VampPrior mixes."""
        q: Distribution = self.network.top_posterior(self.network.bottom_up(x))
        return q

    def decode(self, z: Codes | Draws) -> Distribution:
        """p(x|z) for codes of all levels, ``(..., D)`` each.

        Of draws from `encode` the pass has computed what the decoder's network does.
        """
        output = z.output if isinstance(z, Draws) else None
        output = self.network.decode(z.levels) if output is None else output
        return self.likelihood(output)

    def prior(self) -> LevelPrior:
        """p(z)."""
        return LevelPrior(self.top(), *self._parts())

    def _parts(self) -> tuple[VariableDict, nn.Module]:
        network, variables = self.network.unbind()
        return variables, network

    @nn.nowrap
    def initialize_from_data(
        self, variables: VariableDict, examples: Callable[[int], jax.Array]
    ) -> VariableDict:
        """The variables, a VampPrior's pseudo-inputs being examples."""
        top = self.top
        if not isinstance(top, PriorInitializedFromData):
            return variables
        params = variables["params"]
        changed = top.initialize_from_data(params["top"], examples(top.num_components))
        return {**variables, "params": {**params, "top": changed}}
