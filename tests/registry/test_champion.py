"""The promoted encoders of a warehouse: promotion, rollback, copying, loading, altered files."""

import json
import shutil
import uuid
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tgq.encoder.model import TGQFormer
from tgq.errors import ModelError, WarehouseError
from tgq.night.run_log import embeds_next
from tgq.registry import champion
from tgq.registry.champion import DEFAULT, History, Promotion, local_folder, model_path, read_history, store_encoder, write_history
from tgq.registry.loading import versions_of
from tgq.registry.selection import model_folder, published_folder
from tgq.retrieval.manifest import Manifest
from tgq.run.opening import open_night
from tgq.settings.load import load_settings

BUNDLED, A, B, C = (letter * 16 for letter in "0abc")
MOVES = st.lists(st.sampled_from([A, B, C]) | st.just("back") | st.tuples(st.just("to"), st.sampled_from([A, B, C, BUNDLED, DEFAULT])), max_size=12)


def promotion(version, previous, **more):
    return Promotion(version, "2026-01-31T02:00:00+00:00", previous, False, more.get("files", {}), {"differences": []})


def champion_in(history):
    return history.champion.model_version if history.champion else BUNDLED


@given(MOVES)
@example([B, A, B, A, "back"])
def test_promotions_and_rollbacks_behave_as_a_stack_and_the_history_keeps_all(moves):
    history, stack = History(), [BUNDLED]
    for move in moves:
        if isinstance(move, str) and move != "back":
            if move == stack[-1]:
                continue  # it is the champion: `tgq promote` does nothing
            history, stack = history.promoted(promotion(move, champion_in(history))), [*stack, move]
            continue
        to = None if move == "back" else move[1]
        wanted = BUNDLED if to == DEFAULT else to
        below = stack if to is not None else stack[:-1]
        possible = bool(history.promotions) and (len(stack) > 1 if to is None else wanted in stack)
        if not possible:
            with pytest.raises(WarehouseError):
                history.rolled_back(to, "now")
            continue
        kept = len(below) - below[::-1].index(wanted) if to is not None and wanted != stack[-1] else len(below)
        history, stack = history.rolled_back(to, "now"), stack[: 1 if wanted == BUNDLED else kept]
        assert to is None or history.rolled_back(to, "later") == history, "the same rollback again changes nothing"
    assert champion_in(history) == stack[-1] and [p.model_version for p in history.in_force] == stack[1:]
    assert [p.previous for p in history.in_force] == stack[:-1]
    assert len(history.promotions) >= len(history.in_force) and History.from_json(history.to_json()) == history
    assert json.loads(history.to_json())["model_version"] == (stack[-1] if len(stack) > 1 else None)


def test_rollback_errors_list_the_earlier_champions(tmp_path):
    with pytest.raises(WarehouseError, match="no encoder was promoted"):
        History().rolled_back(None, "now")
    history = History().promoted(promotion(A, BUNDLED)).promoted(promotion(B, A))
    with pytest.raises(WarehouseError, match=f"'{C}' was not champion before {B}: choose one of: {BUNDLED}, {A}"):
        history.rolled_back(C, "now")
    with pytest.raises(WarehouseError, match="every promotion was rolled back"):
        history.rolled_back(DEFAULT, "now").rolled_back(None, "now")
    for broken in (b"{", b"[]", b'{"format": 2, "history": []}', json.dumps({"format": 1, "history": [{"model_version": A}]}).encode()):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "CHAMPION").write_bytes(broken)
        with pytest.raises(WarehouseError, match="broken models/CHAMPION"):
            read_history(str(tmp_path))


@pytest.fixture
def candidate(tiny_encoder, tmp_path):
    """An encoder with one tower inside its folder, the other outside it, and a training's database, which must not be copied."""
    folder = tmp_path / "trained" / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / "towers" / "text").rename(tmp_path / "trained" / "text")
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"text": "../text"}))
    (folder / "training.json").write_text('{"seed": 1}')
    (folder / "mlflow.db").write_bytes(b"large")
    return folder


def promote(root, folder):
    version, _ = versions_of(str(folder))
    files = store_encoder(root, str(folder), version)
    write_history(root, read_history(root).promoted(promotion(version, BUNDLED, files=files)))
    return version


def test_a_promoted_model_loads_after_the_candidates_folder_is_deleted(candidate, tmp_path):
    root = str(tmp_path / "warehouse")
    version = promote(root, candidate)
    place = model_path(root, version)
    assert {"config.json", "model.safetensors", "training.json", "towers/vision/model.safetensors"} <= set(read_history(root).champion.files)
    shutil.rmtree(candidate)
    assert TGQFormer.from_pretrained(local_folder(place)).model_version == version
    assert not (Path(place) / "mlflow.db").exists() and (Path(place) / "training.json").read_text() == '{"seed": 1}'


@pytest.mark.parametrize("name", ["model.safetensors", "towers/vision/config.json"])
def test_an_altered_or_missing_file_is_a_named_error(candidate, tmp_path, name):
    root = str(tmp_path / "warehouse")
    place = model_path(root, promote(root, candidate))
    file = Path(place) / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ModelError, match=f"{name} .*was altered after it was promoted"):
        versions_of(place)
    file.unlink()
    with pytest.raises(ModelError, match=f"{name} .*is missing"):
        versions_of(place)


def test_a_model_on_an_object_store_is_fetched_once_and_verified_in_the_cache(candidate, tmp_path, monkeypatch):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path / "cache"))
    root = f"memory://{uuid.uuid4().hex}/warehouse"
    version = promote(root, candidate)
    settings = load_settings([], [f"warehouse.path={root}"], {}).settings
    place = model_folder(settings)
    assert place == f"{root}/models/{version}" and versions_of(place)[0] == version
    [cached] = (tmp_path / "cache" / "models").iterdir()
    assert local_folder(place) == str(cached)
    whole = (cached / "model.safetensors").read_bytes()
    (cached / "model.safetensors").write_bytes(whole[:100])
    assert (Path(local_folder(place)) / "model.safetensors").read_bytes() == whole, "a damaged cache is fetched again"

    store = fsspec.filesystem("memory")
    store.pipe_file(f"{place}/model.safetensors".removeprefix("memory:/"), b"other weights")
    assert local_folder(place) == str(cached), "a complete cache needs no store"
    shutil.rmtree(cached)
    with pytest.raises(ModelError, match="was altered after it was promoted"):
        local_folder(place)
    with pytest.raises(ModelError, match="no encoder .* was promoted"):
        local_folder(model_path(root, C))


def test_encoder_path_is_champion_default_or_a_folder(candidate, tmp_path):
    root = str(tmp_path / "warehouse")

    def found(*sets):
        return model_folder(load_settings([], [f"warehouse.path={root}", *sets], {}).settings)

    bundled = str(champion.BUNDLED_FOLDER)
    assert found() == found("encoder.path=default") == bundled
    version = promote(root, candidate)
    assert found() == model_path(root, version)
    assert found("encoder.path=default") == bundled and found(f"encoder.path={candidate}") == str(candidate)
    write_history(root, read_history(root).rolled_back(None, "now"))
    assert found() == bundled

    # queries use the published encoder, whichever is champion
    def query_encoder(model_version, encoder, *sets):
        published = Manifest("g", "r", model_version, encoder, "2026-01-31T02:00:00+00:00")
        return published_folder(load_settings([], [f"warehouse.path={root}", *sets], {}).settings, published)

    assert query_encoder(version, "wherever/it/was") == model_path(root, version)
    assert query_encoder(BUNDLED, "default") == query_encoder(BUNDLED, "default", "encoder.path=default") == bundled
    assert query_encoder(BUNDLED, str(candidate)) == query_encoder(BUNDLED, "default", f"encoder.path={candidate}") == str(candidate)


def test_a_run_sets_the_alias_only_to_the_encoder_of_the_next_run(candidate, tmp_path):
    root, bundled = str(tmp_path / "warehouse"), str(champion.BUNDLED_FOLDER)

    def sets_alias(folder):
        return embeds_next(SimpleNamespace(warehouse=SimpleNamespace(root=root), model_folder=folder))

    assert sets_alias(bundled) and sets_alias(str(candidate)), "without any promotion the configured encoder is the next one"
    place = model_path(root, promote(root, candidate))
    assert sets_alias(place) and not sets_alias(bundled), "a promotion since the run began"
    write_history(root, read_history(root).rolled_back(None, "now"))
    assert sets_alias(bundled) and not sets_alias(place), "a rollback since the run began"


def test_a_run_keeps_its_first_encoder_and_the_next_run_uses_the_champion(spark, candidate, tmp_path, empty_tables):
    settings = load_settings(["local"], [f"warehouse.path={tmp_path / 'warehouse'}", "catalog.path=shop"], {}).settings
    first = open_night(spark, settings)
    assert first.settings.encoder.path == DEFAULT
    version = promote(first.warehouse.root, candidate)
    later = open_night(spark, settings, first.run_id), open_night(spark, settings, begins=False)
    assert [night.model_folder for night in later] == [str(champion.BUNDLED_FOLDER)] * 2
    second = open_night(spark, settings)
    assert second.run_id != first.run_id, "the interrupted run had another encoder"
    assert second.model_folder == model_path(second.warehouse.root, version)
    write_history(second.warehouse.root, read_history(second.warehouse.root).rolled_back(None, "now"))
    assert open_night(spark, settings, begins=False).model_folder == second.model_folder
