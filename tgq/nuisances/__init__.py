"""Nuisances: seeded disturbances of an item's picture or metadata, as pure functions."""

from tgq.nuisances.item import Item
from tgq.nuisances.registry import NUISANCES, Nuisance, apply, chosen

__all__ = ["NUISANCES", "Item", "Nuisance", "apply", "chosen"]
