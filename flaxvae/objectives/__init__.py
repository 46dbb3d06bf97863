"""Objectives: functions of a bound model, in nats per example."""

from flaxvae.objectives.elbo import elbo
from flaxvae.objectives.objective import BoundVAE, Objective, Terms

__all__ = ["BoundVAE", "Objective", "Terms", "elbo"]
