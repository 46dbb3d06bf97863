"""scikit-learn estimators: variational autoencoders of tables and images.

Importing this package loads scikit-learn; ``import flaxvae`` does not.
"""

from flaxvae.estimators.classifier import VAEClassifier
from flaxvae.estimators.imputer import VAEImputer
from flaxvae.estimators.outliers import VAEOutlierDetector
from flaxvae.estimators.transformer import VAETransformer

__all__ = ["VAEClassifier", "VAEImputer", "VAEOutlierDetector", "VAETransformer"]
