"""Queries of a search, and how well items answer them: read from files and click logs into two tables."""
