"""Model folders and a champion's pointer that somebody else wrote: nothing is unpickled, nothing outside is read or carried away."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from tgq.encoder.model import TGQFormer
from tgq.encoder.towers.text import TextTower
from tgq.encoder.towers.vision import VisionTower
from tgq.errors import ModelError, WarehouseError
from tgq.query_tower.config import QueryTowerConfig
from tgq.registry.champion import History, Promotion, encoder_files, local_folder, model_path, store_encoder, write_history
from tgq.registry.loading import versions_of
from tgq.settings.sections import TrackingSettings


class Trap:
    """Unpickling it writes a file."""

    def __reduce__(self):
        return os.system, (f"touch {os.environ['TGQ_TRAP']}",)


@pytest.fixture(autouse=True)
def trap(tmp_path, monkeypatch):
    """The file that unpickling a Trap would write; it must not be there at the end."""
    monkeypatch.setenv("TGQ_TRAP", str(tmp_path / "sprung"))
    yield tmp_path / "sprung"
    assert not (tmp_path / "sprung").exists(), "a pickle was loaded"


@pytest.fixture
def encoder(tiny_encoder_dir, tmp_path):
    return Path(shutil.copytree(tiny_encoder_dir, tmp_path / "encoder"))


def edit(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps(Trap()))


def only_pickles(folder: Path) -> None:
    (folder / "towers/vision/model.safetensors").unlink()
    pickled(folder / "towers/vision/pytorch_model.bin")


def adapter(folder: Path) -> None:
    pickled(folder / "towers/text/adapter_model.bin")
    (folder / "towers/text/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"}))


def shards_of_pickles(folder: Path) -> None:
    os.rename(folder / "towers/vision/model.safetensors", folder / "towers/vision/other.safetensors")
    (folder / "towers/vision/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": "pytorch_model.bin"}}))
    pickled(folder / "towers/vision/pytorch_model.bin")


def index_out(folder: Path) -> None:
    os.rename(folder / "towers/vision/model.safetensors", folder / "other.safetensors")
    (folder / "towers/vision/a.safetensors").write_bytes((folder / "other.safetensors").read_bytes())
    (folder / "towers/vision/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": "../../other.safetensors"}}))


WEIGHTS = {
    "pickle-as-own-weights": (lambda f: pickled(f / "model.safetensors"), "model.safetensors cannot be read"),
    "pickle-as-tower-weights": (lambda f: pickled(f / "towers/vision/model.safetensors"), "cannot be loaded"),
    "only-pickled-weights": (only_pickles, "only pickled weights"), "index-that-names-pickles": (shards_of_pickles, "names a file that holds no weights"),
    "adapter-of-another-model": (adapter, "is an adapter of another model"),
    "index-that-leads-out": (index_out, "names a file that holds no weights"),
    "header-that-claims-an-exabyte": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x0f{}"), "model.safetensors cannot be read"),
    "no-weights-but-a-link": (lambda f: _relink(f / "model.safetensors", "/etc/passwd"), "model.safetensors cannot be read"),
    "tower-weights-that-are-a-link": (lambda f: _relink(f / "towers/vision/model.safetensors", "/etc/passwd"), "cannot be loaded"),
    "tower-that-is-a-device": (lambda f: edit(f / "config.json", vision="/dev"), "has no weights"),
    "tower-outside": (lambda f: edit(f / "config.json", vision="../../../../../../../../etc"), "has no weights"),
    "tower-with-a-zero-byte": (lambda f: edit(f / "config.json", vision="towers/vision\0"), "is not a folder"),
}  # fmt: skip


def _relink(file: Path, target: str) -> None:
    file.unlink()
    file.symlink_to(target)


@pytest.mark.parametrize(("poison", "said"), WEIGHTS.values(), ids=WEIGHTS)
def test_poisoned_weights(encoder, poison, said):
    poison(encoder)
    for load in (TGQFormer.from_pretrained, lambda folder: versions_of(str(folder))):
        with pytest.raises(ModelError, match=said) as caught:
            load(encoder)
        assert "\n" not in str(caught.value)


CONFIGS = {
    "no-json": ("config.json", b"\x80\x04pickle", "cannot be read"), "a-list": ("config.json", b"[]", "holds a list"),
    "nested-too-deeply": ("config.json", b"[" * 100_000, "cannot be read"), "not-utf-8": ("config.json", b'{"fit": "\xff"}', "cannot be read"),
    "no-number": ("config.json", b'{"dim": "768"}', "which is no int"), "huge-width": ("config.json", b'{"dim": 1000000000000}', "not between 0 and 65536"),
    "negative-depth": ("config.json", b'{"depth": -1}', "not between 0 and 65536"), "not-a-number": ("config.json", b'{"dropout": NaN}', "not between"),
    "unknown-key": ("config.json", b'{"__class__": "os.system"}', "unknown key"),
    "unknown-connector": ("config.json", b'{"connector": "os.system"}', "os.system"),
    "preprocessor-no-json": ("towers/vision/preprocessor_config.json", b"x", "cannot be read"),
    "preprocessor-without-mean": ("towers/vision/preprocessor_config.json", b'{"size": {"height": 32, "width": 32}}', "does not describe"),
    "preprocessor-huge": ("towers/vision/preprocessor_config.json", b'{"size": {"height": 1000000, "width": 1000000}}', "give sizes of 1 to 4096"),
    "preprocessor-size-is-text": ("towers/vision/preprocessor_config.json", b'{"size": {"height": "9", "width": 9}}', "give sizes of 1 to 4096"),
    "tower-no-json": ("towers/vision/config.json", b"x", "cannot be read"),
    "tower-unknown-type": ("towers/vision/config.json", b'{"model_type": "evil"}', "cannot be loaded"),
    "tower-huge": ("towers/text/config.json", b'{"model_type": "bert", "hidden_size": 1000000000}', "cannot be loaded"),
    "tower-remote-code": ("towers/text/config.json", b'{"model_type": "evil", "auto_map": {"AutoModel": "evil--code.Model"}}', "cannot be loaded"),
    "tower-code-of-the-hub": ("towers/text/config.json", b'{"model_type": "bert", "attn_implementation": "evil/kernel"}', "names code of the hub"),
    "tower-code-of-the-hub-inside": (
        "towers/text/config.json", b'{"model_type": "clip", "text_config": {"_attn_implementation": "evil/kernel"}}', "names code of the hub",
    ),
    "tokenizer-no-json": ("towers/text/tokenizer.json", b"x", "tokenizer"),
    "tokenizer-remote-code": ("towers/text/tokenizer_config.json", b'{"tokenizer_class": 1}', "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), CONFIGS.values(), ids=CONFIGS)
def test_poisoned_configuration(encoder, name, content, said):
    (encoder / name).write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        TGQFormer.from_pretrained(encoder)
    assert "\n" not in str(caught.value)


def test_a_tower_alone_is_checked_too(encoder):
    pickled(encoder / "towers/text/model.safetensors")
    pickled(encoder / "towers/vision/model.safetensors")
    for load in (lambda: TextTower("towers/text", 16, encoder), lambda: VisionTower("towers/vision", "pad", encoder)):
        with pytest.raises(ModelError, match="cannot be loaded"):
            load()


QUERY_CONFIGS = {"a-list": b"[]", "huge": b'{"item_model": "a", "dim": 100000000}', "no-number": b'{"item_model": "a", "dim": "x"}', "deep": b"[" * 100_000}


@pytest.mark.parametrize("content", QUERY_CONFIGS.values(), ids=QUERY_CONFIGS)
def test_a_poisoned_query_tower(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match="is not the configuration of a query tower"):
        QueryTowerConfig.read(tmp_path)


LINKS = {"own-file": "training.json", "tower-file": "towers/text/notes.txt", "weights": "towers/vision/model.safetensors", "hidden": "towers/.key"}


@pytest.mark.parametrize("name", LINKS.values(), ids=LINKS)
def test_a_link_out_of_the_folder_is_not_copied_into_the_warehouse_or_mlflow(encoder, tmp_path, name):
    (tmp_path / "id_rsa").write_text("a private key")
    (encoder / name).unlink(missing_ok=True)
    (encoder / name).symlink_to(tmp_path / "id_rsa")
    with pytest.raises(ModelError, match=f"{name} is a link to .*id_rsa, outside of the encoder's folder"):
        list(encoder_files(encoder))
    with pytest.raises(ModelError, match="outside of the encoder's folder"):
        store_encoder(str(tmp_path / "w"), str(encoder), "0" * 16)
    assert not (tmp_path / "w").exists()


def test_mlflow_gets_no_file_behind_a_link(encoder, tmp_path):
    from tgq.registry.tracking import open_tracker

    (tmp_path / "w").mkdir()
    (tmp_path / "id_rsa").write_text("a private key")
    (encoder / "notes.txt").symlink_to(tmp_path / "id_rsa")
    tracker = open_tracker(TrackingSettings(), str(tmp_path / "w"))
    tracker.start("night-1")
    assert tracker.publish_encoder(encoder, "0" * 16) is None
    assert len(tracker.problems) == 1 and "notes.txt is a link to" in tracker.problems[0]
    assert not [file for file in (tmp_path / "w").rglob("*") if file.is_file() and b"a private key" in file.read_bytes()]


@pytest.fixture
def promoted(encoder, tmp_path):
    """(folder of a promoted encoder, its warehouse)."""
    root, name = str(tmp_path / "w"), versions_of(str(encoder))[0]
    files = store_encoder(root, str(encoder), name)
    write_history(root, History((Promotion(name, "2026-01-01T00:00:00+00:00", "0" * 16, False, files, {}),)))
    assert local_folder(model_path(root, name)) == model_path(root, name)
    return Path(model_path(root, name)), root


ALTERED = {
    "weights": (lambda f: (f / "model.safetensors").write_bytes(b"x"), "was altered after it was promoted"),
    "tower-weights": (lambda f: (f / "towers/vision/model.safetensors").write_bytes(b"x"), "was altered after it was promoted"),
    "configuration": (lambda f: edit(f / "config.json", dropout=0.2), "was altered after it was promoted"),
    "removed": (lambda f: (f / "model.safetensors").unlink(), "is missing"),
    "link-to-another": (lambda f: _relink(f / "model.safetensors", "/etc/passwd"), "was altered after it was promoted"),
    "query-tower-added": (lambda f: (f / "query_tower").mkdir() or (f / "query_tower/config.json").write_text("{}"), "was added to the encoder"),
    "adapter-added": (lambda f: (f / "towers/text/adapter_config.json").write_text("{}"), "was added to the encoder"),
    "weights-added": (lambda f: (f / "towers/vision/a.safetensors").write_bytes(b"x"), "was added to the encoder"),
    "link-added": (lambda f: (f / "towers/vision/a.txt").symlink_to("/etc/passwd"), "was added to the encoder"),
}  # fmt: skip


@pytest.mark.parametrize(("alter", "said"), ALTERED.values(), ids=ALTERED)
def test_a_promoted_encoder_that_was_altered(promoted, alter, said):
    alter(promoted[0])
    with pytest.raises(ModelError, match=said) as caught:
        local_folder(str(promoted[0]))
    assert "\n" not in str(caught.value)


POINTERS = {
    "path-out": ({"files": {"../../../etc/passwd": "0" * 64}}, "leaves the warehouse"),
    "absolute-path": ({"files": {"/etc/passwd": "0" * 64}}, "leaves the warehouse"),
    "name-out": ({"model_version": "../../../../etc"}, "names no model version"),
    "query-name-out": ({"query_version": "../../etc"}, "names no version of a query"),
    "unknown-key": ({"__class__": "x"}, "broken models/CHAMPION"), "digest-is-a-number": ({"files": {"config.json": 1}}, "names no sha256"),
    "files-is-a-list": ({"files": ["config.json"]}, "broken models/CHAMPION"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), POINTERS.values(), ids=POINTERS)
def test_a_poisoned_pointer_to_the_champion(promoted, change, said):
    folder, root = promoted
    pointer = Path(root, "models/CHAMPION")
    fields = json.loads(pointer.read_text())
    fields["history"][0] |= change
    pointer.write_text(json.dumps(fields))
    with pytest.raises(WarehouseError, match=said) as caught:
        local_folder(str(folder))
    assert "\n" not in str(caught.value)


def test_a_pointer_that_is_nested_too_deeply(promoted):
    Path(promoted[1], "models/CHAMPION").write_text("[" * 100_000)
    with pytest.raises(WarehouseError, match="broken models/CHAMPION"):
        local_folder(str(promoted[0]))
