"""One readable page a task; run each as ``python -m experiments.NAME`` here."""
