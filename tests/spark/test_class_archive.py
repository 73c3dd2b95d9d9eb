"""The JVM's class archive: sessions start from it where it is there, and do without it where not."""

import os
import sys
from pathlib import Path

import pytest

from tgq.spark.class_archive import RECORD, archive_file, archive_options, record_archive
from tgq.spark.jars import jars_folder


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A local cache with the JARs alone."""
    there = jars_folder()
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path / "cache"))
    jars_folder().parent.mkdir()
    jars_folder().symlink_to(there)
    return tmp_path / "cache"


def test_the_session_has_mapped_the_archive(spark):
    if not archive_file().is_file():
        pytest.skip("no class archive: run `tgq setup`")
    jvm = spark._jvm.java.lang.ProcessHandle.current().pid()
    assert str(archive_file()) in Path(f"/proc/{jvm}/maps").read_text()


def test_without_an_archive_there_is_no_option_and_other_jars_have_another_one(empty_cache, monkeypatch):
    assert archive_options() == ""
    archive_file().write_bytes(b"")
    assert f'-XX:SharedArchiveFile="{archive_file()}"' in archive_options()
    before = archive_file()
    jar = sorted(jars_folder().glob("*.jar"))[0]
    jars = jars_folder().resolve()
    jars_folder().unlink()
    jars_folder().mkdir()
    for each in jars.glob("*.jar"):
        (jars_folder() / each.name).symlink_to(each)
    (jars_folder() / jar.name).unlink()
    (jars_folder() / jar.name).write_bytes(b"another version")
    assert archive_file() != before and archive_options() == ""
    monkeypatch.setenv(RECORD, "/some/file")
    assert '-XX:ArchiveClassesAtExit="/some/file"' in archive_options()


def test_a_recording_that_fails_says_why_and_leaves_nothing(empty_cache, monkeypatch):
    program = empty_cache / "java-that-fails"
    program.write_text("#!/bin/sh\necho no room on the disk >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert record_archive() == "no room on the disk"
    assert sorted(os.listdir(empty_cache)) == sorted([program.name, jars_folder().name])


def test_the_newest_archives_are_kept(empty_cache, monkeypatch):
    program = empty_cache / "java-that-works"
    program.write_text('#!/bin/sh\necho classes > "$TGQ_RECORD_CLASSES"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    for age in range(4):
        older = empty_cache / f"classes-{age}.jsa"
        older.write_bytes(b"")
        os.utime(older, (1e9 - age, 1e9 - age))
    assert record_archive() is None and archive_file().read_text() == "classes\n"
    assert {file.name for file in empty_cache.glob("classes-*.jsa")} == {archive_file().name, "classes-0.jsa", "classes-1.jsa"}


def test_an_archive_that_is_there_is_not_recorded_again(empty_cache, monkeypatch):
    archive_file().write_bytes(b"")
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert record_archive() is None
