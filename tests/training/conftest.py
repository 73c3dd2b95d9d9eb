import pytest

from tgq.encoder.tiny import write_tiny_encoder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An encoder folder with tiny towers, which no test changes."""
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"), dim=24)
