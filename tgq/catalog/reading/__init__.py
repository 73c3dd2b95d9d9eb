"""Reading of a catalog: where its table and pictures are, its files, its columns as rows, and errors of readers as one line."""
