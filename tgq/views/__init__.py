"""Views of an item: seeded nuisances of its picture and its metadata, as pure functions."""

from tgq.views.item import Item
from tgq.views.registry import NUISANCES, Nuisance, apply, chosen

__all__ = ["NUISANCES", "Item", "Nuisance", "apply", "chosen"]
