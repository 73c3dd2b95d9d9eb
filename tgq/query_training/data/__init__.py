"""What a query tower is trained on: judged and generated queries, their features, and batches of both."""
