"""Perceptual hashes in the embed step on real Spark and Delta: each picture once, also after a kill, and none that is not decoded."""

import pytest

from tests.embedding.test_embed import begin, item, jpeg, put, retrained, sha
from tgq.embedding import committer
from tgq.embedding import embed as step
from tgq.encoder.tiny import write_tiny_encoder
from tgq.images.decode import decode_image
from tgq.images.phash import fingerprint

ON = "duplicates.enabled=true"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_encoder(tmp_path_factory.mktemp("tiny"), seed=3))


@pytest.fixture
def catalog(tmp_path, empty_tables):
    folder = tmp_path / "catalog"
    folder.mkdir()
    return folder


def hashes(night) -> dict[str, tuple[int, int]]:
    rows = night.warehouse.read("picture_hashes").collect()
    assert len({row.image_hash for row in rows}) == len(rows), "a picture occurs twice"
    return {row.image_hash: (row.perceptual_hash, row.colour) for row in rows}


def test_each_decoded_picture_is_hashed_once_and_a_kill_changes_nothing(spark, tmp_path, model, catalog, monkeypatch):
    night = begin(spark, tmp_path, model, catalog, ON, "embed.slice_items=18")
    pictures = [jpeg(n) for n in range(30)]
    rows = [item(n, catalog, pictures[n % 30], f"blue bag {n}", night.run_id) for n in range(45)]
    put(night, [*rows, item(45, catalog, None, "only text", night.run_id), item(46, catalog, jpeg(99)[:200], "cut off", night.run_id)])
    real, calls = committer.commit_slices, []

    def dies_in_the_middle(night, plan, encoded, *rest):
        calls.append(encoded.batch[0].number)
        if len(calls) == 2:
            append = night.warehouse.append

            def dies(frame, table, *more, **options):
                if table == "item_embeddings":
                    raise KeyboardInterrupt
                append(frame, table, *more, **options)

            monkeypatch.setattr(night.warehouse, "append", dies)
        real(night, plan, encoded, *rest)

    monkeypatch.setattr(committer, "commit_slices", dies_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        step.embed(night)
    monkeypatch.undo()
    assert 0 < len(hashes(night)) < 30

    resumed = begin(spark, tmp_path, model, catalog, ON, "embed.slice_items=18")
    done = step.embed(resumed)
    size = 32  # of the tiny encoder's input
    assert hashes(resumed) == {sha(data): fingerprint(decode_image(data, target=size)) for data in pictures}
    figures = done.figures["duplicates"]
    assert (figures["pictures"], figures["unknown"]) == (30, 1), "the picture that cannot be decoded has no hash"
    assert done.versions_written["picture_hashes"] == resumed.warehouse.version("picture_hashes")


def test_a_picture_that_comes_from_the_feature_cache_stays_as_it_is(spark, tmp_path, model, catalog):
    first = begin(spark, tmp_path, model, catalog)
    put(first, [item(n, catalog, jpeg(n), f"toy {n}", first.run_id) for n in range(12)])
    done = step.embed(first)
    assert "duplicates" not in done.figures and hashes(first) == {}, "off by default"

    second = begin(spark, tmp_path, retrained(model, tmp_path / "other"), catalog, ON)
    put(second, [item(12, catalog, jpeg(12), "new", second.run_id)])
    done = step.embed(second)
    assert done.figures["from_kept_features"] == 12 and hashes(second).keys() == {sha(jpeg(12))}
    assert (done.figures["duplicates"]["pictures"], done.figures["duplicates"]["unknown"]) == (1, 12)

    version = second.warehouse.version("picture_hashes")
    third = begin(spark, tmp_path, str(write_tiny_encoder(tmp_path / "third", seed=5)), catalog, ON)
    done = step.embed(third)  # other towers: every picture is decoded
    assert len(hashes(third)) == 13 and third.warehouse.version("picture_hashes") == version + 1
    assert done.figures["duplicates"]["unknown"] == 0
