"""The query tower: it maps what shoppers type into the space of the item embeddings."""
