"""Titles of items: which are refined, and by what."""
