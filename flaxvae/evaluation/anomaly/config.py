"""How a detector is trained and what it scores by."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from flaxvae.settings import check_settings, setting

ScoreName = Literal[
    "combined",
    "bound",
    "distance",
    "draws",
    "elbo",
    "kl",
    "reconstruction",
    "typicality",
]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)


class Part(NamedTuple):
    """One of the equal parts of a score.

    Attributes:
      score: what is computed, of `SCORE_NAMES`.
      variance: of p(x|z), which is the weight beta of the KL in training; None: the
        score needs no model.
      trim: share of each batch that training leaves out, the rows of highest loss.
    """

    score: ScoreName
    variance: float | None
    trim: float


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """How a detector is trained; the defaults are one setting for every table.

    They were chosen by the mean ROC AUC over tables that scikit-learn and a generator
    provide (`experiments.anomaly.tables`).

    Example:
      >>> DetectorConfig(score="bound").score
      'bound'
    """

    score: ScoreName = "combined"
    """What is high for an anomaly. combined: the mean of distance, elbo and the KL of a
    second VAE, each in standard deviations. Of one VAE: elbo (minus the ELBO at the
    mean code), draws (its mean over repeated draws of the code), bound (minus the
    importance-weighted bound), reconstruction (-log p(x|z) at the mean code), kl, or
    typicality (how far minus the ELBO is from its mean). distance: the squared distance
    from the mean of the scaled columns, without a model."""
    variance: float = setting(0.03, above=0)
    """Variance of p(x|z) of the flexible VAE, in scaled columns."""
    kl_variance: float = setting(5.0, above=0, needs={"score": "combined"})
    """Variance of p(x|z) of the VAE whose KL is a part of the combined score."""
    trim: float = setting(0.15, at_least=0, below=1)
    """Share of each batch that the flexible VAE does not learn from, the rows of
    highest loss, among which the anomalies are expected."""
    copies: int = setting(2, at_least=1)
    """Models of each kind, which differ in their seed."""
    latent_dim: int | None = setting(None, at_least=1)
    """Number of latent dimensions. Default: 8 for rows, 32 for images, and at most the
    number of columns."""
    hidden: int | None = setting(None, at_least=1)
    """Width of the hidden layer of encoder and decoder. Default: 64 for rows, 256 for
    images."""
    steps: int = setting(500, at_least=1)
    """Training steps."""
    batch_size: int = setting(128, at_least=1)
    """Rows in a step, drawn with replacement."""
    learning_rate: float = setting(5e-3, above=0)
    """Of Adam, at its peak; it falls to 0 along a cosine."""
    num_samples: int = setting(16, at_least=1, needs={"score": ("bound", "draws")})
    """Draws of the code for each row, of the scores bound and draws."""
    clip: float = setting(8.0, above=0)
    """Standard deviations from the mean at which a column is clipped."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the score is the mean of."""
        if self.score == "distance":
            return (Part("distance", None, 0.0),)
        if self.score != "combined":
            return (Part(self.score, self.variance, self.trim),)
        return (
            Part("distance", None, 0.0),
            Part("elbo", self.variance, self.trim),
            Part("kl", self.kl_variance, 0.0),
        )
