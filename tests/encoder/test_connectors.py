"""What holds for every connector, TGQ-Former's and its rivals."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tgq.encoder import connectors
from tgq.encoder.connectors import CONNECTORS
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder

METADATA = ["red shirt | sport", "blue leather bag for women", "", "home mug", "a lamp of green wool and cotton for the home"]
PICTURES = torch.tensor([0, 1, 2, 1, -1])
BLIND = {"qformer", "perceiver", "mlp"}  # their tokens do not follow the metadata


@pytest.fixture(scope="module", params=sorted(CONNECTORS))
def encoder(request, tmp_path_factory):
    folder = write_tiny_encoder(tmp_path_factory.mktemp(request.param), connector=request.param)
    return TGQFormer.from_pretrained(folder)


@pytest.fixture
def stirred(encoder, stir):
    return stir(TGQFormer.from_pretrained(encoder.relative_to))


def pixels(encoder):
    return torch.stack([encoder.vision.preprocess(Image.new("RGB", (40, 50), c)) for c in ("red", "blue", "white")])


def tokens_of(encoder, features):
    return encoder.connector(encoder.image_in(features.image_tokens) + encoder.position, features.text_tokens, features.text_mask)


def test_it_starts_as_its_fusion_and_has_an_anchor_only_for_anchored_queries(encoder):
    f = encoder.features(encoder.encode_image(pixels(encoder)), PICTURES, METADATA, METADATA)
    base = encoder.head.base(f.image, f.has_image, f.text, f.has_text)
    torch.testing.assert_close(encoder(f).embedding, F.normalize(base, dim=-1), atol=1e-6, rtol=0)
    assert (encoder.anchor is None) == (encoder.connector.n_anchored == 0)


def test_an_embedding_depends_on_neither_its_batch_nor_on_masked_text(stirred):
    def encode(rows):
        said = [METADATA[i] for i in rows]
        return stirred.encode(pixels(stirred), PICTURES[rows], said, said).embedding

    whole = encode(list(range(5)))
    torch.testing.assert_close(torch.cat([encode([4, 2]), encode([0])]), whole[[4, 2, 0]], atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(5))
    f = stirred.features(stirred.encode_image(pixels(stirred)), PICTURES, METADATA, METADATA)
    noise = torch.randn_like(f.text_tokens) * ~f.text_mask[..., None]
    noisy = type(f)(**{**f.__dict__, "text_tokens": f.text_tokens + noise})
    torch.testing.assert_close(stirred(noisy).embedding, stirred(f).embedding, atol=1e-6, rtol=0)


def test_tokens_follow_the_picture_and_the_metadata_as_the_design_says(stirred):
    f = stirred.features(stirred.encode_image(pixels(stirred)), torch.tensor([0, 0, 1]), ["red shirt", "home mug", "red shirt"], [""] * 3)
    tokens = tokens_of(stirred, f)
    if not tokens.shape[1]:
        return
    assert (tokens[0] - tokens[2]).abs().max() > 1e-3
    assert ((tokens[0] - tokens[1]).abs().max() < 1e-6) == (stirred.config.connector in BLIND)


def test_a_training_step_reaches_every_weight_of_its_own(stirred):
    stirred.train()
    f = stirred.features(stirred.encode_image(pixels(stirred)), PICTURES, METADATA, METADATA)
    (stirred(f).embedding * torch.randn(5, stirred.dim)).sum().backward()
    asleep = {n.split(".")[0] for n, p in stirred.named_parameters() if p.requires_grad and p.grad is None}
    tokenless = {"anchor", "image_in", "null_image", "position", "head"} if not tokens_of(stirred, f).shape[1] else set()
    assert asleep - tokenless == (set() if stirred.gates else {"alignment"})  # S_title is read by a gate


def test_each_connector_is_a_file_of_at_most_80_lines():
    files = sorted(Path(connectors.__file__).parent.glob("*.py"))
    assert {f.stem for f in files} == {*CONNECTORS, "__init__", "connector"}
    assert all(len(f.read_text().splitlines()) <= 80 for f in files)
