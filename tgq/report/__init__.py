"""The report of a run: plain data in, one self-contained HTML page out."""
