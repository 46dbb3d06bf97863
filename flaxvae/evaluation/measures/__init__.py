"""Metrics of a run, each from a `Context` to a `Measurement`."""
