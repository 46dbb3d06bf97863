"""Anomaly detectors side by side, on tables of the user and on those of validation."""
