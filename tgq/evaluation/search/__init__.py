"""Search queries in the evaluation of a night: what shoppers type, ranked exactly over the full pool and measured with graded judgments."""
