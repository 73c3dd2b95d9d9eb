"""Upkeep of a warehouse: what nights leave behind and nobody needs any more."""
