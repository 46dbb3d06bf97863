"""How like real examples generated ones are, in features of both.

Precision, recall, density, coverage and a Frechet distance as functions of arrays, and
`sample_quality` of a trained model.
"""

from flaxvae.evaluation.sample_quality.frechet import frechet_distance
from flaxvae.evaluation.sample_quality.neighbours import (
    density_coverage,
    precision_recall,
)
from flaxvae.evaluation.sample_quality.samples import sample_quality

__all__ = [
    "density_coverage",
    "frechet_distance",
    "precision_recall",
    "sample_quality",
]
