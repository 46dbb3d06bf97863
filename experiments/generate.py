"""Generate samples of a trained model: images or rows of a table, as files.

    python -m experiments.generate --workdir=runs/... --num=10000
    python -m experiments.generate --workdir=runs/... --label=3 --output=threes/
    python -m experiments.generate --workdir=runs/... --around 0 5 --output=near.npz

The suffix of the output selects the format: ``.npz`` (arrays ``x`` and, for classes,
``labels``), ``.csv`` or ``.parquet`` (rows of the table: its columns, categories and
units), otherwise a folder of PNGs.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

import flaxvae
from experiments import command
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.latent.samplers import SamplerName
from flaxvae.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes samples of a trained model."""

    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """New NAME.npz, NAME.csv, NAME.parquet or folder for PNG images. Default:
    WORKDIR/samples.npz."""
    num: int = setting(100, at_least=1)
    """Number of samples; with --around, for each example."""
    sampler: SamplerName = "prior"
    """Codes: the prior, a mixture fitted to codes, or examples' posteriors."""
    label: int | None = setting(None, at_least=0)
    """Generate this class only: as the condition of a conditional model, otherwise
    from the codes of its training examples."""
    around: tuple[int, ...] = ()
    """Numbers of test examples to vary: codes are drawn from their posteriors."""
    spread: float = setting(1.0, at_least=0)
    """--around: factor of the posterior's standard deviation."""
    noise: bool = False
    """Draw from p(x|z) instead of writing its mean; rows of a table are always drawn.
    """
    seed: int = 0
    """Seed of the draws."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)
        if self.around and (self.label is not None or self.sampler != "prior"):
            raise InputError("around must stand alone, without label and sampler")


def main(flags: Flags) -> None:
    """Model, codes, samples, file."""
    run = flaxvae.load(flags.workdir)
    output = flags.output or flags.workdir / "samples.npz"
    x, _ = run.generate(
        flags.num,
        sampler=flags.sampler,
        label=flags.label,
        around=flags.around,
        spread=flags.spread,
        with_noise=flags.noise,
        seed=flags.seed,
        output=output,
        dataset=flags.data.load,
    )
    print(f"{len(x):,} samples written to {output}")


if __name__ == "__main__":
    command.run_command(main, Flags)
