"""The codes of a VQ-VAE: how the codebook is used, and a prior over the codes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split, condition_on_labels
from flaxvae.data.dataset import check_examples
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.latent.encode import codebook_size, encode_indices, share_codes
from flaxvae.models import CodePrior, CodePriorConfig
from flaxvae.objectives import Autoregressive
from flaxvae.training import Engine, RunFolder, Trained, fit


def fit_code_prior(
    codes: Dataset,
    config: CodePriorConfig | None = None,
    *,
    seed: int = 0,
    workdir: str | Path | None = None,
    engine: Engine | None = None,
    progress: bool = True,
) -> Trained:
    """The second stage of a VQ-VAE: a transformer over the codes of its examples.

    With labels in every split the prior is conditional on the class, unless
    ``config.prior_classes`` is False.

    Args:
      codes: numbers of entries, as `flaxvae.latent.encode_dataset` returns them with
        ``indices=True``.
      config: network and training of the prior. By default it sees 342,000 examples,
        but is trained for 12 epochs at most.
      seed: of its training.
      workdir: a run's folder, from which the same call continues.
      engine: see `flaxvae.training.fit`.
      progress: see `flaxvae.training.fit`.

    Raises:
      InputError: ``config.prior_epochs`` is 0, or what `fit` refuses.
    """
    config = config or CodePriorConfig()
    if config.prior_epochs == 0:
        raise InputError("prior_epochs must be >= 1 to train a prior, got 0")
    if config.prior_classes and _are_labelled(codes):
        codes = condition_on_labels(codes)
    batch_size = min(config.prior_batch_size, len(codes.train))
    epochs = config.choose_epochs(len(codes.train))
    if workdir is not None:
        _check_same_length(RunFolder(workdir), epochs)
    return fit(
        config.build(codes),
        codes,
        objective=Autoregressive(),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=config.prior_learning_rate,
        lr_schedule="cosine",
        clip_norm=1.0,
        seed=seed,
        workdir=workdir,
        engine=engine,
        progress=progress,
        on_interrupt="raise",
    )


def _check_same_length(folder: RunFolder, epochs: int) -> None:
    """Raises `InputError` for a prior of other epochs: its schedule has a length."""
    known = folder.epochs
    if known not in (None, epochs):
        raise InputError(
            f"prior_epochs must be {known}, those of the prior in {folder.path}, got "
            f"{epochs}: remove that folder to train another one"
        )


def _are_labelled(codes: Dataset) -> bool:
    splits = (codes.train, codes.validation, codes.test)
    return all(split.labels is not None for split in splits)


def code_usage(
    trained: Trained,
    split: Split,
    *,
    seed: int | None = None,
    codes: Split | None = None,
    train_codes: Split | None = None,
) -> dict[str, float]:
    """How the entries of a codebook are used.

    Args:
      trained: a trained `flaxvae.models.VQVAE`.
      split: the examples, such as ``dataset.test``.
      seed: of binarization and dequantization; default that of the run.
      codes: of the split, where it has been encoded already, under the same seed.
      train_codes: of the training split.

    Returns:
      ``perplexity``: exp of the entropy of the entries' (weighted) frequencies in the
      split, of the inputs whose terms `flaxvae.evaluation.evaluate` reports;
      ``dead_entries``: the share of entries that the training split does not use, only
      with ``train_codes``.
    """
    check_examples(split)
    codes = encode_indices(trained, split, seed=seed) if codes is None else codes
    M = codebook_size(trained)
    shares = share_codes(codes.x, M, codes.weights)
    used = shares[shares > 0]
    usage = {"perplexity": float(np.exp(-np.sum(used * np.log(used))))}
    if train_codes is not None:
        in_training = share_codes(train_codes.x, M)
        usage["dead_entries"] = float((in_training == 0).mean())
    return usage


def evaluate_code_prior(
    trained: Trained,
    split: Split,
    *,
    seed: int | None = None,
    code_prior: Trained | None = None,
    codes: Split | None = None,
) -> dict[str, float]:
    """-log p(code) of a split's codes under the prior over them.

    Args:
      trained: a trained `flaxvae.models.VQVAE`.
      split: the examples, such as ``dataset.test``.
      seed: of binarization and dequantization; default that of the run.
      code_prior: the trained prior.
      codes: of the split, where it has been encoded already, under the same seed.

    Returns:
      ``code_nll``, nats per example, of code and class for a class-conditional prior;
      empty without a prior. The codes are those of the inputs whose ``log_likelihood``
      `flaxvae.evaluation.evaluate` reports under the same seed.
    """
    if code_prior is None:
        return {}
    codes = encode_indices(trained, split, seed=seed) if codes is None else codes
    model = code_prior.model
    if isinstance(model, CodePrior) and model.num_classes is not None:
        if codes.labels is None:
            raise InputError("split must have labels for a class-conditional prior")
        codes = replace(codes, condition=np.asarray(codes.labels, np.int32))
    terms = evaluate_terms(code_prior, codes, Autoregressive(), seed=seed)
    return {"code_nll": terms["loss"]}
