"""The LLM head, on a random Qwen3 of a few thousand weights."""

import json
import shutil

import pytest
import torch

from tgq.encoder.layers import heads
from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder, write_tiny_llm
from tgq.errors import ModelError
from tgq.training.loss.losses import info_nce

TEXTS = ["red shirt | sport", "blue bag of leather for women | bag", "mug", "", "green lamp | home", "white sofa | home"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm-encoder")
    write_tiny_llm(folder / "towers" / "llm")
    return write_tiny_encoder(folder, head="llm", llm="towers/llm", lora_rank=4)


@pytest.fixture
def model(folder):
    return TGQFormer.from_pretrained(folder)


def pixels(count):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def encode(model, rows):
    return model.encode(pixels(6), torch.tensor(rows), [TEXTS[i] for i in rows], [TEXTS[i] for i in rows]).embedding


def step(model, optimizer, features):
    out = model(features).embedding
    loss = info_nce(out[:3], out[3:], torch.tensor(10.0), torch.zeros(3, 3, dtype=torch.bool))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_neither_batch_nor_padding_reach_the_state_that_is_read(model):
    whole = encode(model, [0, 1, 2, 3, 4, 5])
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(6))
    torch.testing.assert_close(encode(model, [5, 3, 1]), whole[[5, 3, 1]], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat([encode(model, [i]) for i in range(6)]), whole, atol=1e-4, rtol=0)


def test_items_are_passed_in_groups_of_like_length_and_come_back_in_order(model, monkeypatch):
    whole, padded = encode(model, [0, 1, 2, 3, 4, 5]), []
    monkeypatch.setattr(heads, "GROUP", 2)
    model.head.llm.register_forward_pre_hook(lambda module, args, kwargs: padded.append(kwargs["attention_mask"].shape[1]), with_kwargs=True)
    torch.testing.assert_close(encode(model, [0, 1, 2, 3, 4, 5]), whole, atol=1e-4, rtol=0)
    assert padded == sorted(padded) and padded[0] < padded[-1]


def test_nothing_is_kept_that_only_the_light_head_reads(model):
    assert model.anchor is None and model.config.anchor


def test_the_version_outlives_the_folder_that_was_loaded(folder, tmp_path):
    work = shutil.copytree(folder, tmp_path / "work" / "encoder")
    (work / "towers").rename(tmp_path / "towers")
    config = json.loads((work / "config.json").read_text())
    beside = {part: f"../../{config[part]}" for part in ("vision", "text", "llm")}
    (work / "config.json").write_text(json.dumps(config | beside))
    model = TGQFormer.from_pretrained(work)
    version = model.model_version
    shutil.rmtree(tmp_path / "work")
    assert model.model_version == version


def test_text_picture_and_both_missing(model):
    out = model.encode(None, torch.tensor([-1, -1]), ["", "mug"], ["", ""]).embedding
    assert torch.isfinite(out).all() and (out[0] - out[1]).abs().max() > 1e-4


def test_training_lowers_the_loss_and_touches_the_adapters_only(model):
    features = model.features(model.encode_image(pixels(6)), torch.arange(6), TEXTS, TEXTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    model.train()
    losses = [step(model, optimizer, features) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.05
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= set(model.own_state())
    assert any("lora_A" in name for name in changed) and any("lora_B" in name for name in changed)


def test_save_load_and_merge_give_the_same_vectors(model, tmp_path):
    features = model.features(model.encode_image(pixels(6)), torch.arange(6), TEXTS, TEXTS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(3):
        step(model, optimizer, features)
    model.eval()
    vectors, version = encode(model, [0, 1, 2, 3]), model.model_version
    model.save_pretrained(tmp_path)
    again = TGQFormer.from_pretrained(tmp_path)
    assert again.model_version == version
    assert not [name for name in again.own_state() if name.startswith("head.llm.") and "lora_" not in name]
    torch.testing.assert_close(encode(again, [0, 1, 2, 3]), vectors, atol=1e-6, rtol=0)
    again.head.merge()
    torch.testing.assert_close(encode(again, [0, 1, 2, 3]), vectors, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="merge"):
        again.save_pretrained(tmp_path / "merged")


def test_a_head_without_a_language_model_is_one_line(folder, tmp_path):
    with pytest.raises(ModelError, match="llm"):
        write_tiny_encoder(tmp_path, head="llm")
