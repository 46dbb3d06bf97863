"""Compile a preset's training for a TPU slice; see `experiments.tpu`.

pip install -e ".[tpu]"  # in an environment of its own
python -m experiments.compile_for_tpu --topology=v5e:4x4 --preset=mlp
"""

from experiments.command import run_command
from experiments.tpu.compile import Flags, main

if __name__ == "__main__":
    run_command(main, Flags)
