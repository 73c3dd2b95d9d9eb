"""The promoted encoders of a warehouse: promotion, rollback, copying, loading, altered files."""

import json
import shutil
import uuid
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tgq.encoder.model import TGQFormer
from tgq.errors import ModelError, WarehouseError
from tgq.night.run_log import embeds_next
from tgq.query_tower import config as query_tower
from tgq.query_tower.config import QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry import champion
from tgq.registry.champion import DEFAULT, History, Promotion, encoder_name, local_folder, model_path, read_history, store_encoder, write_history
from tgq.registry.loading import load_query_tower, query_version_of, versions_of
from tgq.registry.selection import model_folder, published_folder
from tgq.retrieval.manifest import Manifest
from tgq.run.opening import open_night
from tgq.settings.load import load_settings

BUNDLED, A, B, C = (letter * 16 for letter in "0abc")
Q, R = "1" * 16, "2" * 16  # query towers
NAMES = [A, B, f"{A}-{Q}", f"{A}-{R}", f"{B}-{Q}", f"{BUNDLED}-{Q}"]
MOVES = st.lists(st.sampled_from(NAMES) | st.just("back") | st.tuples(st.just("to"), st.sampled_from([*NAMES, C, BUNDLED, DEFAULT])), max_size=12)


def promotion(name, previous, **more):
    version, _, queries = name.partition("-")
    return Promotion(version, "2026-01-31T02:00:00+00:00", previous, False, more.get("files", {}), {"differences": []}, query_version=queries)


def champion_in(history):
    return history.champion.name if history.champion else BUNDLED


def means(said, name):
    """Whether what is said after `--to` is this champion: by its name, or by its model version whatever its tower."""
    return said == name or said == name.partition("-")[0]


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
        if to == DEFAULT and len(stack) > 1:
            kept, possible = 1, True
        elif to is None:
            kept, possible = len(stack) - 1, len(stack) > 1
        else:
            fits = [n for n, name in enumerate(stack, 1) if means(to, name)] or ([1] if to == DEFAULT else [])
            # the bundled encoder comes before a later promotion of its model, unless that is the champion now
            kept = 1 if fits and fits[0] == 1 and fits[-1] < len(stack) else max(fits, default=0)
            possible = bool(fits)
        possible = possible and bool(history.promotions)
        if not possible:
            with pytest.raises(WarehouseError):
                history.rolled_back(to, "now")
            continue
        history, stack = history.rolled_back(to, "now"), stack[:kept]
        assert to is None or history.rolled_back(to, "later") == history, "the same rollback again changes nothing"
    assert champion_in(history) == stack[-1] and [p.name for p in history.in_force] == stack[1:]
    assert [p.previous for p in history.in_force] == stack[:-1]
    assert len(history.promotions) >= len(history.in_force) and History.from_json(history.to_json()) == history
    shown = json.loads(history.to_json())
    assert champion.encoder_name(shown["model_version"], shown["query_version"]) == (stack[-1] if len(stack) > 1 else None)


def test_a_pointer_of_a_version_without_query_towers_loads_and_a_broken_tower_is_an_error():
    old = json.loads(History((promotion(A, BUNDLED),)).to_json())
    del old["query_version"], old["history"][0]["query_version"]
    assert History.from_json(json.dumps(old)) == History((promotion(A, BUNDLED),))
    old["history"][0]["query_version"] = "../../elsewhere"
    with pytest.raises(WarehouseError, match="names no version of a query tower"):
        History.from_json(json.dumps(old))


def test_the_last_champion_with_an_item_model_gives_its_query_tower():
    def of(history, version=A):
        found = history.of(version)
        return found and found.name

    history = History().promoted(promotion(A, BUNDLED)).promoted(promotion(f"{A}-{Q}", A)).promoted(promotion(f"{A}-{R}", f"{A}-{Q}"))
    assert of(History()) is None and of(history) == f"{A}-{R}" and of(history, B) is None
    once = history.rolled_back(None, "2026-02-01")
    twice = once.rolled_back(None, "2026-02-02").rolled_back(None, "2026-02-03")
    assert of(once) == f"{A}-{Q}" and of(twice) == A, "of those rolled back, the last that was champion"
    other = history.promoted(promotion(B, f"{A}-{R}"))
    assert of(other) == f"{A}-{R}" and of(other, B) == B and of(history.rolled_back(DEFAULT, "2026-02-01")) == f"{A}-{R}"
    assert {promotion.name for promotion in history.promotions} == {history.named(name).name for name in (A, f"{A}-{Q}", f"{A}-{R}")}
    assert history.named(f"{B}-{Q}") is None


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
    name = encoder_name(versions_of(str(folder))[0], query_version_of(str(folder)))
    files = store_encoder(root, str(folder), name)
    write_history(root, read_history(root).promoted(promotion(name, champion_in(read_history(root)), files=files)))
    return name


def with_tower(folder, seed, text):
    """The encoder's folder, with a random query tower in it in place of any other, on the checkpoint that `text` names from query_tower/."""
    place = folder / query_tower.FOLDER
    place.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    QueryTower(QueryTowerConfig(versions_of(str(folder))[0], 12, text=text), relative_to=place).save(place)
    query_version_of.cache_clear()
    return folder


@pytest.mark.parametrize("text", ["../words", "words", "../towers/vision/words", "../../text"])
def test_a_promoted_query_tower_answers_after_the_candidates_folder_is_deleted(candidate, tmp_path, text):
    root, checkpoint = str(tmp_path / "warehouse"), tmp_path / "trained" / "text"
    (candidate / query_tower.FOLDER).mkdir()
    outside = (candidate / query_tower.FOLDER / text).resolve() == checkpoint
    if not outside:
        shutil.copytree(checkpoint, candidate / query_tower.FOLDER / text)
    with_tower(candidate, 0, text)
    vectors, version = QueryTower.load(candidate / query_tower.FOLDER).encode_queries(["red shoe"]), query_version_of(str(candidate))
    name = promote(root, candidate)
    place = Path(model_path(root, name))
    shutil.rmtree(candidate)
    assert name == f"{versions_of(str(place))[0]}-{version}" and query_version_of(str(place)) == version
    assert np.array_equal(load_query_tower(str(place)).encode_queries(["red shoe"]), vectors)
    said = json.loads((place / query_tower.FOLDER / "config.json").read_text())["text"]
    assert said == (str(checkpoint) if outside else text), "what stands inside keeps its place, what stands outside is not copied"
    assert {"query_tower/config.json", "query_tower/model.safetensors"} <= set(read_history(root).champion.files)
    file = place / query_tower.FOLDER / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    query_version_of.cache_clear()
    with pytest.raises(ModelError, match="query_tower/model.safetensors .*was altered after it was promoted"):
        query_version_of(str(place))


def test_another_tower_of_the_same_items_is_used_at_once_and_a_rollback_gives_the_first_back(candidate, tmp_path):
    root = str(tmp_path / "warehouse")
    settings = load_settings([], [f"warehouse.path={root}"], {}).settings
    items = versions_of(str(candidate))[0]
    published = Manifest("g", "r", items, "wherever/it/was", "2026-01-31T02:00:00+00:00")

    def asked():
        return published_folder(settings, published), load_query_tower(published_folder(settings, published))

    bare = promote(root, candidate)
    first = promote(root, with_tower(candidate, 0, "../../text"))
    folder, tower = asked()
    kept = {file: (Path(folder) / file).read_bytes() for file in read_history(root).champion.files}
    second = promote(root, with_tower(candidate, 1, "../../text"))
    assert bare == items and len({bare, first, second}) == 3 and not (Path(model_path(root, bare)) / query_tower.FOLDER).exists()
    assert {file: (Path(folder) / file).read_bytes() for file in kept} == kept, "the files of the earlier promotion stay"
    now = asked()
    assert now[0] == model_path(root, second) and not np.array_equal(*(found.encode_queries(["mug"]) for found in (now[1], tower)))
    write_history(root, read_history(root).rolled_back(None, "2026-02-01"))
    assert asked()[0] == folder == model_path(root, first) == model_folder(settings)
    assert np.array_equal(asked()[1].encode_queries(["mug"]), tower.encode_queries(["mug"]))
    write_history(root, read_history(root).rolled_back(None, "2026-02-02"))
    assert asked() == (model_path(root, bare), None)


def test_a_tower_for_the_bundled_encoder_is_gone_after_its_rollback(candidate, tmp_path, monkeypatch):
    root = str(tmp_path / "warehouse")
    bundled = tmp_path / "bundled"
    shutil.copytree(candidate, bundled)
    shutil.copytree(tmp_path / "trained" / "text", tmp_path / "text")
    monkeypatch.setattr("tgq.registry.selection.BUNDLED_FOLDER", bundled)
    items = versions_of(str(candidate))[0]
    name = encoder_name(items, query_version_of(str(with_tower(candidate, 0, "../../text"))))
    files = store_encoder(root, str(candidate), name)
    write_history(root, History().promoted(promotion(name, items, files=files)))

    def asked(encoder, *sets):
        published = Manifest("g", "r", items, encoder, "2026-01-31T02:00:00+00:00")
        return published_folder(load_settings([], [f"warehouse.path={root}", *sets], {}).settings, published)

    assert asked("default") == model_path(root, name)
    write_history(root, read_history(root).rolled_back(None, "2026-02-01"))
    assert asked("default") == asked(model_path(root, name)) == str(bundled), "also if a night was published with the tower"


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
