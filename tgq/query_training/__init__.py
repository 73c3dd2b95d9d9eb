"""Training of the query tower, on arrays: item embeddings, frozen features, and queries with graded items."""
