"""Batch normalization with the running statistics of PyTorch."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class TorchBatchNorm(nn.BatchNorm):
    """Like `flax.linen.BatchNorm`, but with PyTorch's statistics.

    Both normalize by the biased variance of the batch. Flax's running variance is the
    moving average of it, PyTorch's that of the unbiased one, n / (n - 1) times as
    large for n values per channel. The steps are counted as ``num_batches_tracked``
    does, in the variable ``count`` of ``batch_stats``.

    Source: documentation of ``torch.nn.BatchNorm2d``.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalizes ``(..., C)``; see `flax.linen.BatchNorm`."""
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        is_known = self.has_variable("batch_stats", "var")
        before = self.get_variable("batch_stats", "var") if is_known else None
        y: jax.Array = super().__call__(x, use_running_average, mask=mask)
        average = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        if before is None or average or self.is_initializing():
            return y
        n = x.size // x.shape[-1]
        if self.axis_name is not None:
            n *= jax.lax.axis_size(self.axis_name)
        kept = self.momentum * before
        added = self.get_variable("batch_stats", "var") - kept
        self.put_variable("batch_stats", "var", kept + added * (n / max(n - 1, 1)))
        count.value += 1
        return y
