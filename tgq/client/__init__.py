"""The Python API: encoder, warehouse, export, nightly run. `import tgq` provides its names."""
