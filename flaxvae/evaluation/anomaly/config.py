"""How a detector is trained and what it scores by."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from flaxvae.settings import Except, check_settings, setting

ModelScore = Literal["bound", "draws", "elbo", "kl", "reconstruction", "typicality"]
PartName = Literal["marginals", ModelScore]
ScoreName = Literal["combined", PartName]

OF_VAES = {"score": Except("marginals")}


class Part(NamedTuple):
    """One part of a score.

    Attributes:
      score: what is computed; every one but marginals needs models.
      share: of this part in the score; all shares add up to 1.
    """

    score: PartName
    share: float


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """How a detector is trained; the defaults are one setting for every table.

    They were chosen by the ROC AUC on the 71 tables of `experiments.anomaly.tables`,
    each of their 30 sources with the same weight: of the settings whose mean is within
    a standard error of the best, a simple one that loses least to an isolation forest
    on the quarter of sources where it compares worst.

    Example:
      >>> DetectorConfig(score="bound").score
      'bound'
    """

    score: ScoreName = "combined"
    """What is high for an anomaly. Of the VAEs: elbo (minus the ELBO at the mean code),
    draws (its mean over repeated draws of the code), bound (minus the
    importance-weighted bound), reconstruction (-log p(x|z) at the mean code), kl, or
    typicality (how far minus the ELBO is from its median). marginals: -log p of each
    column by itself, added up, without a VAE. combined: elbo and marginals."""
    marginals_share: float = setting(
        0.65, above=0, below=1, needs={"score": "combined"}
    )
    """Share of the marginals in the combined score."""
    variance: float = setting(0.1, above=0, needs=OF_VAES)
    """Variance of p(x|z), in scaled columns."""
    trim: float = setting(0.3, at_least=0, below=1, needs=OF_VAES)
    """Share of each batch that the VAEs do not learn from, the rows of highest loss,
    among which the anomalies are expected."""
    copies: int = setting(4, at_least=1, needs=OF_VAES)
    """VAEs whose scores are averaged; they differ in their seed."""
    latent_dim: int | None = setting(None, at_least=1, needs=OF_VAES)
    """Number of latent dimensions. Default: 8 for rows, 32 for images, and at most the
    number of columns."""
    hidden: int | None = setting(None, at_least=1, needs=OF_VAES)
    """Width of the hidden layer of encoder and decoder. Default: 64 for rows, 256 for
    images."""
    steps: int = setting(500, at_least=1, needs=OF_VAES)
    """Training steps."""
    batch_size: int = setting(128, at_least=1, needs=OF_VAES)
    """Rows in a step, drawn with replacement."""
    learning_rate: float = setting(5e-3, above=0, needs=OF_VAES)
    """Of Adam, at its peak; it falls to 0 along a cosine."""
    num_samples: int = setting(16, at_least=1, needs={"score": ("bound", "draws")})
    """Draws of the code for each row, of the scores bound and draws."""
    clip: float = setting(8.0, above=0)
    """Standard deviations from the mean at which a column is clipped."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the score is the weighted mean of."""
        if self.score != "combined":
            return (Part(self.score, 1.0),)
        share = self.marginals_share
        return Part("elbo", 1.0 - share), Part("marginals", share)

    @property
    def has_models(self) -> bool:
        """Whether any part is a score of the VAEs."""
        return self.score != "marginals"
