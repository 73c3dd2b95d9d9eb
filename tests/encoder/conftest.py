"""One tiny encoder for the encoder's tests: random towers, milliseconds to load."""

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory):
    from tgq.encoder.tiny import write_tiny_encoder

    return write_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"))


@pytest.fixture
def tiny(tiny_encoder_dir):
    from tgq.encoder.model import TGQFormer

    return TGQFormer.from_pretrained(tiny_encoder_dir)


@pytest.fixture
def stir():
    """Makes an encoder look trained: no weight of its own is zero, so that every path has a say."""

    def stirred(encoder):
        torch.manual_seed(7)
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if not name.startswith(("vision.", "text.")):
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return encoder

    return stirred


@pytest.fixture
def stirred(tiny, stir):
    """The tiny encoder, stirred."""
    return stir(tiny)
