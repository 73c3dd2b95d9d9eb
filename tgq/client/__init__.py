"""tgq from Python: an encoder, and a warehouse that is read without Spark. `import tgq` gives its names."""
