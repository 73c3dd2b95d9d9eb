"""Refinement of an item's title: by rules, or by a language model whose answers are checked. Needs no Spark."""
