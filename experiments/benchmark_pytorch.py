"""Time the same trainings in flaxvae and in PyTorch; see `experiments.pytorch`.

pip install -e ".[torch]"
python -m experiments.benchmark_pytorch --data_dir=FOLDER_WITH_MNIST
"""

from experiments.command import run_command
from experiments.pytorch.benchmark import Flags, main

if __name__ == "__main__":
    run_command(main, Flags)
