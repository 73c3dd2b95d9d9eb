"""Training on composed scenes as a job: parts of pictures are computed once, by the tower that the encoder has."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tgq.demo.catalog import draw_catalog
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.towers.parts import PartsTower
from tgq.errors import ModelError
from tgq.images.decode import decode_image
from tgq.registry.tracking import open_tracker
from tgq.run.progress import Silent
from tgq.settings.load import load_settings
from tgq.training.data.dataset import TrainingSet
from tgq.training.trainer import TrainConfig
from tgq.training_job import scene_parts
from tgq.training_job.job import Source, train_encoder


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=60, seed=3, size=64, workers=1)
    return folder


@pytest.fixture
def run(spark, shop, cnn_encoder_dir, mlflow_in, tmp_path, monkeypatch):
    """run(name, **options): train; returns the training set and the result."""
    monkeypatch.setattr(scene_parts, "cache_folder", lambda: tmp_path / "local")
    monkeypatch.setattr(scene_parts, "SLICE", 16)
    kept, save = [], TrainingSet.save
    monkeypatch.setattr(TrainingSet, "save", lambda rows, path: (kept.append(rows), save(rows, path)))
    shape = EncoderConfig.read(cnn_encoder_dir)
    shape = replace(shape, text=str((cnn_encoder_dir / shape.text).resolve()))

    def train(name, encoder=shape, processes=1, **changed):
        mlflow_in(tmp_path / name)
        options = replace(TrainConfig(seed=5, steps=4, pairs=8, evaluate_every=2, chunk=8), **changed)
        source = Source.of_catalog(f"{shop}=catalogs/demo", tmp_path / "cache")
        result = train_encoder(spark, tmp_path / name, [source], encoder, options, 1000, None, Silent(), processes)
        return kept[-1], result

    return train


def test_parts_are_computed_once_and_are_those_of_the_pictures(run, tmp_path, cnn_encoder_dir, shop, monkeypatch):
    rows, result = run("first", scene_share=0.5)
    assert result.steps == 4 and rows.parts.known.all() and len(rows.parts.known) == len(rows.image) > 20
    vision = TGQFormer.from_pretrained(cnn_encoder_dir).vision
    tower = PartsTower(vision)
    pixels = [vision.preprocess(decode_image(file.read_bytes(), target=vision.input_size)) for file in sorted((shop / "images").rglob("*.*"))]
    expected = tower(torch.stack(pixels)).half().numpy()
    for half, closeup in zip(rows.parts.half, rows.parts.closeup, strict=True):
        distance = np.abs(expected[:, :4].reshape(-1, 2, 2, vision.width) - half).max((1, 2, 3)) + np.abs(expected[:, 4] - closeup).max(1)
        assert distance.min() < 0.02 * np.abs(half).max() + 1e-3
    assert rows.banks.backgrounds.shape[1:3] == (4, 4) and len(set(rows.category.tolist())) > 3
    # a second training runs no tower: it finds parts and banks where the first one left them
    monkeypatch.setattr(scene_parts, "draw_banks", None)
    monkeypatch.setattr(scene_parts, "_PartsTask", None)
    again, repeated = run("again", scene_share=0.5)
    assert repeated.model_version == result.model_version and (again.parts.half == rows.parts.half).all()
    plain, _ = run("plain")
    assert plain.parts is None and plain.banks is None and (plain.image_tokens == rows.image_tokens).all()


def test_several_processes_have_the_curve_of_one_with_scenes_too(run, tmp_path):
    curves = []
    for processes in (1, 2):
        run(f"{processes}", scene_share=0.5, processes=processes)
        client = open_tracker(load_settings(["local"], []).settings.tracking, str(tmp_path / f"{processes}")).client
        [found] = client.search_runs([client.get_experiment_by_name("tgq-training").experiment_id])
        curves.append({name: [point.value for point in client.get_metric_history(found.info.run_id, name)] for name in ("validation_mrr", "loss", "attention")})
    assert len(curves[0]["attention"]) == 2 and min(curves[0]["attention"]) > 0
    for name, values in curves[0].items():
        assert curves[1][name] == pytest.approx(values, rel=1e-4)


def test_a_tower_whose_scenes_cannot_be_composed_is_refused_before_anything_is_read(run, tiny_encoder, tmp_path):
    shape = EncoderConfig.read(tiny_encoder)
    shape = replace(shape, **{name: str((tiny_encoder / getattr(shape, name)).resolve()) for name in ("vision", "text")})
    with pytest.raises(ModelError, match="not the mean of a square grid of cells: use a CNN"):
        run("refused", shape, scene_share=0.5)
    assert not (tmp_path / "cache").exists()
