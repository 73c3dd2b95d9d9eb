"""Views of an item: seeded nuisances of its picture and its metadata, as pure functions."""

from tgq.nuisances.item import Item
from tgq.nuisances.registry import NUISANCES, Nuisance, apply, chosen

__all__ = ["NUISANCES", "Item", "Nuisance", "apply", "chosen"]
