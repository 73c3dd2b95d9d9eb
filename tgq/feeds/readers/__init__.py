"""The formats, one reader each: `inspect` looks at the beginning of a file, `read` gives the rows of a part of it."""
