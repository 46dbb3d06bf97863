"""Trainings compiled for TPU slices: `compile` is the command."""
