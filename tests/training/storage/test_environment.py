import subprocess
import sys

import numpy as np

from flaxvae.training.storage.environment import peak_resident_memory

SHOW = """
from flaxvae.training.storage.environment import peak_resident_memory
print(peak_resident_memory())
"""


def test_a_process_does_not_count_the_memory_of_the_one_that_has_started_it():
    block = np.ones(2**26)  # half a gigabyte
    command = [sys.executable, "-c", SHOW]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 2**24 < int(shown) < block.nbytes < peak_resident_memory()
