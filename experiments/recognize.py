"""Classify the samples of a trained model by a classifier of real examples.

    python -m experiments.recognize --workdir=runs/mnist_vae/... --dataset=mnist

A model that is conditional on classes generates them in turn.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, terminal
from flaxvae import evaluation
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.evaluation.recognition import train_classifier
from flaxvae.files import write_json
from flaxvae.latent.samplers import SamplerName
from flaxvae.settings import check_settings, setting

ROWS = {
    "as_asked": ("as the requested class (real: its label)", "{:.2%}"),
    "confident": ("with a probability above 0.9", "{:.2%}"),
    "classes": ("effective number of classes, exp of the entropy", "{:.2f}"),
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Classifies generated samples, by a classifier of the real examples."""

    workdir: Path
    """Folder of the run with the model; the classifier is kept in it."""
    num: int = setting(10_000, at_least=1)
    """Number of samples."""
    sampler: SamplerName = "prior"
    """Codes: the prior, a mixture fitted to codes, or examples' posteriors."""
    classifier_epochs: int = setting(5, at_least=1)
    """Epochs of the classifier."""
    seed: int = 0
    """Seed of the draws and of the classifier."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, classifier, samples, numbers."""
    workdir = flags.workdir.expanduser()
    run = flaxvae.load(workdir, dataset=flags.data.load())
    assert run.dataset is not None
    name = f"classifier-{flags.classifier_epochs}-{flags.seed}"
    classifier = train_classifier(
        run.dataset,
        epochs=flags.classifier_epochs,
        seed=flags.seed,
        workdir=workdir / name,
    )
    found = evaluation.recognize(
        run,
        run.dataset,
        num=flags.num,
        sampler=flags.sampler,
        classifier=classifier,
        code_prior=run.code_prior,
        seed=flags.seed,
    )
    write_json(workdir / "recognition.json", found)
    terminal.print_columns(
        f"{flags.num:,} samples of {flags.workdir}",
        ["classified", "generated", "real (test)"],
        [
            [
                title,
                *(
                    form.format(found[which][key]) if key in found[which] else "-"
                    for which in ("generated", "real")
                ),
            ]
            for key, (title, form) in ROWS.items()
        ],
    )


if __name__ == "__main__":
    command.run_command(main, Flags)
