# ruff: noqa: PT012, RUF043

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from numpy_bundle import manifest, write_bundle

from satchel.export import bundle as module
from satchel.export.bundle import BundleWriter
from satchel.export.model_card import license_text, model_card
from satchel.runtime.bundle import open_bundle
from satchel.runtime.errors import BundleError, CheckpointError, OutputError


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundle_is_whole_and_its_bytes_are_always_the_same(tmp_path: Path):
    first = write_bundle(tmp_path / "made" / "on the way" / "toy-bench.satchel")
    second = write_bundle(tmp_path / "b.satchel")
    assert tree(first) == tree(second)
    bundle = open_bundle(first)
    assert {f.path for f in bundle.manifest.files} == set(tree(first)) - {"manifest.json"}
    assert bundle.bytes == sum(map(len, tree(first).values()))
    assert (first / "LICENSE").read_text() == "Terms.\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.satchel", "made"]
    assert oct(first.stat().st_mode & 0o777) == oct((tmp_path / "made").stat().st_mode & 0o777)


def test_model_card_states_origin_changes_and_reasons():
    card = model_card(manifest())
    for wanted in (
        "# maker/toy for bench", "apache-2.0", "1 matrices: palette4 (4-bit palette", "1 matrices: int8",
        "| weights | palette: smallest (rule 1) |", "| satchel | 0.1.0 |", "context of 96 tokens",
    ):  # fmt: skip
        assert wanted in card
    assert card == model_card(manifest())
    unknown = replace(manifest().model, license="unknown", license_text="")
    assert "not stated" in license_text(unknown)


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt(), CheckpointError("x"), SystemExit(1)])
def test_an_interrupted_bundle_leaves_nothing(tmp_path: Path, fault: BaseException):
    target = tmp_path / "new" / "a.satchel"
    with pytest.raises(type(fault)), BundleWriter(target) as writer:
        (writer.folder / "model.npy").write_bytes(b"half")
        (writer.folder / "deep").mkdir()
        raise fault
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_finish_leaves_nothing(tmp_path: Path):
    with BundleWriter(tmp_path / "a.satchel") as writer:
        (writer.folder / "model.npy").write_bytes(b"half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_while_writing_is_said_and_leaves_nothing(tmp_path: Path, number: int):
    with pytest.raises(OutputError, match="no space left"), BundleWriter(tmp_path / "a.satchel") as writer:
        (writer.folder / "model.npy").write_bytes(b"half")
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["sha256", "model_card", "_synchronize"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_fault_in_any_step_of_the_end_leaves_the_old_bundle(tmp_path: Path, monkeypatch, step: str, fault):
    target = write_bundle(tmp_path / "a.satchel", seed=1)
    before = tree(target)
    monkeypatch.setattr(module, step, lambda *_: (_ for _ in ()).throw(fault))
    wanted = OutputError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(wanted), BundleWriter(target, overwrite=True) as writer:
        (writer.folder / "model.npy").write_bytes(b"new")
        writer.finish(manifest())
    assert [p.name for p in tmp_path.iterdir()] == ["a.satchel"] and tree(target) == before


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_rename_leaves_the_old_bundle(tmp_path: Path, monkeypatch, failing: int):
    target = write_bundle(tmp_path / "a.satchel", seed=1)
    before, real, calls = tree(target), Path.rename, []

    def rename(self: Path, to: Path) -> Path:
        calls.append(to)
        if len(calls) == failing:
            raise KeyboardInterrupt
        return real(self, to)

    with pytest.raises(KeyboardInterrupt), BundleWriter(target, overwrite=True) as writer:
        (writer.folder / "model.npy").write_bytes(b"new")
        monkeypatch.setattr(Path, "rename", rename)
        writer.finish(manifest())
    assert [p.name for p in tmp_path.iterdir()] == ["a.satchel"] and tree(target) == before


def test_a_writer_s_own_error_on_a_full_disk_is_one_of_space(tmp_path: Path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    with pytest.raises(OutputError, match="no space left"), BundleWriter(tmp_path / "a.satchel"):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        raise RuntimeError("could not write blob")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_files_are_not_blamed_on_the_bundle(tmp_path: Path):
    with pytest.raises(PermissionError), BundleWriter(tmp_path / "a.satchel"):
        raise PermissionError(errno.EACCES, "no", str(tmp_path / "checkpoint"))
    with pytest.raises(OutputError, match="no permission"), BundleWriter(tmp_path / "a.satchel") as writer:
        raise PermissionError(errno.EACCES, "no", str(writer.folder / "model"))


def test_free_space_is_checked_before_anything_is_written(tmp_path: Path):
    with (
        pytest.raises(OutputError, match="no space for the bundle"),
        BundleWriter(tmp_path / "new" / "a.satchel", needed_bytes=1 << 60),
    ):
        raise AssertionError("entered")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path):
    target = write_bundle(tmp_path / "a.satchel", seed=1)
    with pytest.raises(OutputError, match="exists already.*--overwrite"), BundleWriter(target):
        raise AssertionError("entered")
    with BundleWriter(target, overwrite=True) as writer:
        (writer.folder / "model.npy").write_bytes(b"new")
        writer.finish(manifest())
    assert (open_bundle(target).folder / "model.npy").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.satchel"]


def test_what_is_no_bundle_is_never_replaced(tmp_path: Path):
    mine = tmp_path / "mine.satchel"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    (tmp_path / "file.satchel").write_text("x")
    (tmp_path / "link.satchel").symlink_to(mine)
    for target in (mine, tmp_path / "file.satchel", tmp_path / "link.satchel", tmp_path / "file.satchel" / "a.satchel"):
        with pytest.raises(OutputError), BundleWriter(target, overwrite=True):
            raise AssertionError("entered")
    with pytest.raises(OutputError, match="ending"), BundleWriter(tmp_path / "a"):
        raise AssertionError("entered")
    assert (mine / "thesis.txt").read_text() == "years"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_said(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"), BundleWriter(tmp_path / "a.satchel"):
        raise AssertionError("entered")


def test_what_could_not_be_opened_is_not_written(tmp_path: Path):
    with pytest.raises(BundleError, match="not among the files"), BundleWriter(tmp_path / "a.satchel") as writer:
        writer.finish(manifest())
    with pytest.raises(OutputError, match="may not hold"), BundleWriter(tmp_path / "a.satchel") as writer:
        (writer.folder / "model.npy").symlink_to("/etc/hostname")
        writer.finish(manifest())
    assert list(tmp_path.iterdir()) == []
