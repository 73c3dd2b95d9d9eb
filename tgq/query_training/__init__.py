"""Training of the query tower: what it learns from, in a shop with logs or without."""
