"""Attributes that the shop does not state: which items are asked about, and what says them."""
