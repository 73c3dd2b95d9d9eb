"""A catalog multiplied: seeded variants of its items, with the truth about each. Only `job` and `sampling` import pyspark."""
