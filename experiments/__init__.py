"""One readable page a task; run each as ``python -m experiments.NAME`` here."""

import gc

# Python's collector would walk over all imported modules several times while they are
# imported, and again in every trace: a tenth of a short command's time.
gc.set_threshold(100_000, 20, 50)
