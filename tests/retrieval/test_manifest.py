"""Publishing: all or nothing under kill, roll back, collect; broken files are named."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

from tgq.errors import WarehouseError
from tgq.retrieval import manifest as m
from tgq.retrieval.manifest import Manifest, collect_garbage, history, load, load_current, publish, rollback, stored
from tgq.retrieval.shards import build_shard, read_shard, write_shard
from tgq.storage.files import Files

STEPS = ("mkdir", "open", "replace", "fsync", "remove", "rename", "rmdir", "unlink")


def generation(root, name, previous, salt, shared=()):
    """A generation with one new shard and those it shares with an older one."""
    vectors = np.random.default_rng(salt).standard_normal((3, 4)).astype(np.float32)
    shard, factory = build_shard(vectors, ["a", "b", "c"], "Flat", seed=0)
    file = dataclasses.replace(
        write_shard(root, shard, f"c{salt}", 0, factory, "d"), search={"nprobe": 2}, recall_at_k=0.99
    )
    return Manifest(
        name, f"run-{name}", "0123456789abcdef", "models:/tgq@champion", "2025-01-01T00:00:00+00:00",
        {"item_embeddings": salt}, (*shared, file), previous,
    )  # fmt: skip


def three_nights(root):
    first = generation(root, "g1", None, 1)
    publish(root, first)
    second = generation(root, "g2", "g1", 2, first.shards)
    publish(root, second)
    third = generation(root, "g3", "g2", 3, second.shards[1:])
    publish(root, third)
    return first, second, third


def names(root, folder=m.SHARDS):
    return set(Files(root).list(folder))


def test_a_manifest_survives_json():
    manifest = generation_without_files()
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert "grounding" not in json.loads(manifest.to_json()), "as earlier versions wrote it"
    grounded = generation_without_files(grounding={"detector": "anchor", "margin": 0.1, "identity": "0123456789abcdef"})
    assert Manifest.from_json(grounded.to_json()) == grounded
    with pytest.raises(WarehouseError, match="grounding is no group"):
        Manifest.from_json(generation_without_files(grounding="anchor").to_json())
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.run_id = "other"


def generation_without_files(**changes):
    return dataclasses.replace(
        Manifest("g", "run", "v", "e", "2025-01-01T00:00:00+00:00", {"t": 1}, (), None), **changes
    )


def test_publish_load_history_rollback(tmp_path):
    assert load_current(tmp_path) is None and history(tmp_path) == []
    first, second, third = three_nights(tmp_path)
    assert load_current(tmp_path) == third
    assert history(tmp_path) == [third, second, first]
    assert load(tmp_path, "g1") == first
    publish(tmp_path, third)  # once more is nothing more
    assert rollback(tmp_path) == second == load_current(tmp_path)
    assert history(tmp_path) == [second, first]
    assert rollback(tmp_path, "g3") == third == load_current(tmp_path)
    for shard in third.shards:
        assert read_shard(tmp_path, shard).ids.tolist() == ["a", "b", "c"]


def test_a_folder_without_a_manifest_is_no_generation(tmp_path):
    """A run that ends while it writes its manifest, because it was killed or the disk is full, leaves one."""
    *_, third = three_nights(tmp_path)
    (tmp_path / "index" / "generations" / "g4").mkdir()
    assert stored(tmp_path) == ["g1", "g2", "g3"]
    with pytest.raises(WarehouseError, match="there is no generation 'g4': choose one of: g1, g2, g3$"):
        load(tmp_path, "g4")
    fourth = dataclasses.replace(third, generation="g4", previous="g3")
    publish(tmp_path, fourth)
    assert stored(tmp_path) == ["g1", "g2", "g3", "g4"] and load_current(tmp_path) == fourth


def test_garbage_is_what_no_kept_manifest_names(tmp_path):
    first, second, third = three_nights(tmp_path)
    write_shard(
        tmp_path, build_shard(np.eye(4), list("wxyz"), "Flat", 0)[0], "left by a killed night", 0, "Flat"
    )
    (tmp_path / m.SHARDS / ".tmp-0123").write_bytes(b"half")
    (tmp_path / m.SHARDS / "notes.txt").write_text("somebody's own")
    assert collect_garbage(tmp_path, 5)
    wanted = {
        path.rsplit("/", 1)[1]
        for g in (first, second, third)
        for s in g.shards
        for path in (s.path, s.ids_path)
    }
    assert names(tmp_path) == wanted | {"notes.txt"}
    removed = collect_garbage(tmp_path, 2)
    assert names(tmp_path, m.GENERATIONS) == {"g2", "g3"}
    assert history(tmp_path) == [third, second]
    assert set(removed) == {f"{m.GENERATIONS}/g1"}  # g2 shares g1's shard
    collect_garbage(tmp_path, 1)
    assert names(tmp_path) == {p.rsplit("/", 1)[1] for s in third.shards for p in (s.path, s.ids_path)} | {
        "notes.txt"
    }
    assert collect_garbage(tmp_path, 1) == []
    with pytest.raises(WarehouseError, match="choose one of: g3"):
        rollback(tmp_path, "g1")
    with pytest.raises(WarehouseError, match="no generation 'g2'"):
        rollback(tmp_path)
    with pytest.raises(ValueError, match="keep is 0: keep at least the current generation"):
        collect_garbage(tmp_path, 0)


def killed_at(step, action):
    """Runs `action` in a process that is killed right before its step-th system step; True when it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(real):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_anywhere_while_publishing_readers_see_the_old_or_the_new(tmp_path):
    first = generation(tmp_path, "g1", None, 1)
    publish(tmp_path, first)
    seen, step = [], 0
    while True:
        step += 1
        second = generation(tmp_path, f"n{step}", load_current(tmp_path).generation, 2, first.shards)
        before = load_current(tmp_path)
        killed = killed_at(step, lambda new=second: publish(tmp_path, new))
        now = load_current(tmp_path)
        assert now in (before, second)
        seen.append(now == second)
        if not killed:
            break
        publish(
            tmp_path, dataclasses.replace(second, previous=second.previous)
        )  # the rerun finishes what was begun
        assert load_current(tmp_path) == second
    assert step > 5 and seen[0] is False and seen[-1] is True
    collect_garbage(tmp_path, 2)
    assert not [p for p in (tmp_path / m.SHARDS).iterdir() if p.name.startswith(".tmp")]


def test_killed_anywhere_while_collecting_no_manifest_names_a_removed_file(tmp_path):
    step, killed = 0, True
    while killed:
        step += 1
        root = tmp_path / str(step)
        three_nights(root)
        killed = killed_at(step, lambda at=root: collect_garbage(at, 1))
        for name in names(root, m.GENERATIONS):
            if Files(root).size(f"{m.GENERATIONS}/{name}/manifest.json") is not None:
                for shard in load(root, name).shards:
                    read_shard(root, shard)
        assert load_current(root).generation == "g3"
    assert step > 4


def test_an_error_while_writing_leaves_the_old_and_no_debris(tmp_path, monkeypatch):
    first = generation(tmp_path, "g1", None, 1)
    publish(tmp_path, first)
    second = generation(tmp_path, "g2", "g1", 2)
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:  # the manifest's file and folder went through; the pointer's file does not
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WarehouseError, match="No space left on device.*free disk space"):
        publish(tmp_path, second)
    assert load_current(tmp_path) == first
    assert not list(tmp_path.rglob(".tmp-*"))
    publish(tmp_path, second)
    assert load_current(tmp_path) == second


def test_what_must_not_be_published(tmp_path):
    first, second, third = three_nights(tmp_path)
    with pytest.raises(WarehouseError, match="built on g2, and g3 is current"):
        publish(tmp_path, generation(tmp_path, "late", "g2", 9))
    with pytest.raises(WarehouseError, match="exists with other content"):
        publish(tmp_path, dataclasses.replace(second, previous="g3"))
    for name in ("../g", "", "a/b", ".hidden", "x" * 200, "a\0"):
        with pytest.raises(WarehouseError, match="not a valid name of a generation"):
            publish(tmp_path, generation_without_files(generation=name, previous="g3"))
    fourth = generation(tmp_path, "g4", "g3", 4)
    target = tmp_path / fourth.shards[0].path
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(WarehouseError, match="missing or truncated"):
        publish(tmp_path, fourth)
    (tmp_path / first.shards[0].path).unlink()
    with pytest.raises(WarehouseError, match="missing or truncated"):
        rollback(tmp_path, "g1")
    assert load_current(tmp_path) == third


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-5],
        lambda text: b"",
        lambda text: b"\xff\xfe",
        lambda text: b"[]",
        lambda text: text.replace(b'"format": 1', b'"format": 2'),
        lambda text: text.replace(b'"run_id"', b'"runid"'),
        lambda text: text.replace(b'"n_items"', b'"items"'),
        lambda text: text.replace(b'"path": "', b'"path": 1, "x": "'),
        lambda text: json.dumps({"format": 1, "shards": None}).encode(),
    ],
)
def test_a_broken_manifest_is_named(tmp_path, damage):
    publish(tmp_path, generation(tmp_path, "g1", None, 1))
    path = tmp_path / m.GENERATIONS / "g1" / "manifest.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WarehouseError, match="altered after it was published"):
        load_current(tmp_path)
    with pytest.raises(WarehouseError, match="broken manifest"):
        load(tmp_path, "g1")


def test_a_broken_pointer_is_named_and_can_be_repaired(tmp_path):
    first, *_ = three_nights(tmp_path)
    for text in (b"", b"{}", b'"g1"', b'{"generation": "g1"}', b'{"generation": 3, "sha256": "x"}'):
        (tmp_path / m.CURRENT).write_bytes(text)
        with pytest.raises(WarehouseError, match="does not name a generation"):
            load_current(tmp_path)
    (tmp_path / m.CURRENT).write_text('{"generation": "../../etc", "sha256": "x"}')
    with pytest.raises(WarehouseError, match="not a valid name of a generation"):
        load_current(tmp_path)
    assert rollback(tmp_path, "g1") == first == load_current(tmp_path)


def test_there_is_nothing_to_roll_back_to_at_first(tmp_path):
    with pytest.raises(WarehouseError, match="nothing|no generation to roll back"):
        rollback(tmp_path)
    publish(tmp_path, generation(tmp_path, "g1", None, 1))
    with pytest.raises(WarehouseError, match="no generation to roll back"):
        rollback(tmp_path)


def test_an_object_store_holds_generations_too():
    root = "memory://warehouse-of-test"
    first, second, third = three_nights(root)
    assert load_current(root) == third and history(root) == [third, second, first]
    assert rollback(root) == second
    collect_garbage(root, 1)
    assert names(root, m.GENERATIONS) == {"g2"}
    assert read_shard(root, second.shards[0]).index.ntotal == 3
    Files("memory://").fs.rm("/warehouse-of-test", recursive=True)
