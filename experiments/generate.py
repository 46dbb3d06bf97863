"""Generate samples of a trained model: images or rows of a table, as files.

    python -m experiments.generate --workdir=runs/... --num=10000
    python -m experiments.generate --workdir=runs/... --label=3 --output=threes/
    python -m experiments.generate --workdir=runs/... --around 0 5 --output=near.npz

The suffix of the output selects the format: ``.npz`` (arrays ``x`` and, for classes,
``labels``), ``.csv`` or ``.parquet`` (rows of the table: its columns, categories and
units), ``.png`` (all images in one picture), and without a suffix a folder of PNGs.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command
from experiments.run_data import RunData
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.latent.samplers import SamplerName
from flaxvae.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes samples of a trained model."""

    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """New NAME.npz, NAME.csv, NAME.parquet, NAME.png or folder for PNG images. Default:
    WORKDIR/samples.npz."""
    num: int = setting(100, at_least=1)
    """Number of samples; with --around, for each example."""
    sampler: SamplerName | None = None
    """Codes: the prior, a mixture fitted to codes, or examples' posteriors. Default:
    prior; with --label, where the model takes no class, aggregate."""
    label: int | str | None = setting(None, at_least=0)
    """Generate this class only, by its number or name: as the condition of a
    conditional model, otherwise from the codes of its training examples."""
    around: tuple[int, ...] = ()
    """Numbers of test examples to vary: codes are drawn from their posteriors."""
    spread: float | None = setting(None, at_least=0)
    """--around: factor of the posterior's standard deviation. Default: 1."""
    noise: bool = False
    """Draw images or series from p(x|z) instead of writing its mean; rows of a table
    are always drawn."""
    temperature: float | None = setting(None, at_least=0)
    """Model with several levels: factor of the standard deviations of its prior's
    normal levels. Default: 1."""
    seed: int | None = None
    """Seed of the draws. Default: that of the run."""
    data: OmitArgPrefixes[RunData] = field(default_factory=RunData)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.seed is not None:
            check_seed(self.seed)
        if self.around and (self.label is not None or self.sampler is not None):
            raise InputError("around must stand alone, without label and sampler")
        if self.spread is not None and not self.around:
            raise InputError(
                f"spread must be left out without around, got {self.spread}"
            )


def main(flags: Flags) -> None:
    """Model, codes, samples, file."""
    run = flaxvae.load(flags.workdir)
    if flags.noise and len(run.data_shape) == 1:
        raise InputError("noise must be left out for rows, which are always drawn")
    needs_data = run.needs_data(
        sampler=flags.sampler or "prior", label=flags.label, around=flags.around
    )
    if not needs_data:
        flags.data.refuse("where no examples are needed: samples are from the prior")
    elif flags.sampler == "prior":
        raise InputError(
            "sampler must be mixture or aggregate for a class of a model that takes "
            "no class, got prior"
        )
    output = flags.output or flags.workdir / "samples.npz"
    x, _ = run.generate(
        flags.num,
        sampler=flags.sampler or "prior",
        label=flags.label,
        around=flags.around,
        spread=1.0 if flags.spread is None else flags.spread,
        with_noise=flags.noise,
        temperature=1.0 if flags.temperature is None else flags.temperature,
        seed=flags.seed,
        output=output,
        dataset=lambda: flags.data.load(run),
    )
    print(f"{len(x):,} samples written to {output}")


if __name__ == "__main__":
    command.run_command(main, Flags)
