"""Classify the samples of a trained model by a classifier of real examples.

    python -m experiments.recognize --workdir=runs/mnist_vae/...

The classifier is trained on the run's own training examples. A model that is
conditional on classes generates them in turn.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command, terminal
from experiments.run_data import RunData, choose_output
from flaxvae.checks import check_seed
from flaxvae.latent.generate import check_sampled
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
    """Folder of the run with the model."""
    output: Path | None = None
    """Folder for the results; the classifier is kept in it. Default: that of the run.
    """
    num: int = setting(10_000, at_least=1)
    """Number of samples."""
    sampler: SamplerName = "prior"
    """Codes: the prior, a mixture fitted to codes, or examples' posteriors."""
    classifier_epochs: int = setting(5, at_least=1)
    """Epochs of the classifier."""
    seed: int | None = None
    """Seed of the draws and of the classifier. Default: that of the run."""
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.seed is not None:
            check_seed(self.seed)


def main(flags: Flags) -> None:
    """Model, classifier, samples, numbers."""
    output = choose_output(flags.output, flags.workdir)
    run = flaxvae.load(flags.workdir)
    check_sampled(run, sampler=flags.sampler, code_prior=run.code_prior)
    dataset = flags.data.load(run)
    found = run.recognize(
        output,
        num=flags.num,
        sampler=flags.sampler,
        classifier_epochs=flags.classifier_epochs,
        seed=flags.seed,
        dataset=dataset,
    )
    terminal.print_columns(
        f"{flags.num:,} samples of {flags.workdir}",
        ["classified", "generated", f"real (test of {run.title_of(dataset)})"],
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
    print(f"written to {output}: recognition.json")


if __name__ == "__main__":
    command.run_command(main, Flags)
