"""tgq: a nightly batch pipeline that turns a catalog into item embeddings, and proves how good they are."""

__version__ = "0.1.0"
