"""A board, played by an ssh and an scp that run everything on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from numpy_bundle import write_bundle

from satchel.devices.errors import DeviceError
from satchel.runtime.bundle import open_bundle
from satchel.runtime.errors import UsageError
from satchel.runtime.remote.ssh import run_over_ssh

SSH = """#!{python}
import os, subprocess, sys
arguments = sys.argv[1:]
while arguments[0] == "-o":
    del arguments[:2]
dashes, host, command = arguments
assert dashes == "--", arguments
if host != "board":
    sys.stderr.write("ssh: Could not resolve hostname " + host + ": Name or service not known\\n")
    sys.exit(255)
environment = dict(os.environ, PATH={path!r}, TMPDIR={board!r})
sys.exit(subprocess.run(["/bin/sh", "-c", command], env=environment).returncode)
"""
SCP = """#!{python}
import pathlib, shutil, sys
arguments = sys.argv[1:]
assert arguments.pop(0) == "-q"
while arguments[0] == "-o":
    del arguments[:2]
if arguments[0] == "-r":
    del arguments[0]
source, target = [pathlib.Path(a.removeprefix("board:")) for a in arguments]
if source.is_dir():
    shutil.copytree(source, target)
else:
    shutil.copy(source, target)
"""
SATCHEL = """#!{python}
import pathlib, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(print("0.1.0"))
from satchel.runtime.bundle import open_bundle
command, bundle, output, target, *rest = sys.argv[1:]
assert (command, output) == ("parity", "--output"), sys.argv
code = {code}
if code < 2:
    pathlib.Path(target).write_text(open_bundle(bundle).manifest.model.model_id + " " + " ".join(rest))
else:
    sys.stderr.write("error: onnxruntime is too old for this model\\n")
sys.exit(code)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("made") / "toy 'quoted'.satchel")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Sets up a board whose satchel exits with a code; returns the folder in which it makes its own."""
    mine, theirs, scratch = (tmp_path / name for name in ("here", "there", "tmp"))
    for folder in (mine, theirs, scratch):
        folder.mkdir()

    def put(place: Path, text: str, **values: object) -> None:
        place.write_text(text.format(python=sys.executable, **values), encoding="utf-8")
        place.chmod(0o755)

    put(mine / "ssh", SSH, path=f"{theirs}:/usr/bin:/bin", board=str(scratch))
    put(mine / "scp", SCP)
    monkeypatch.setenv("PATH", str(mine))

    def set_up(code: int | None = 0) -> Path:
        if code is not None:
            put(theirs / "satchel", SATCHEL, code=code)
        return scratch

    return set_up


@pytest.mark.parametrize("code", [0, 1])
def test_the_file_comes_back_and_nothing_is_left_there(bundle: Path, board, code):
    scratch = board(code)  # 1: figures beyond their limits, of which the file tells
    name = open_bundle(bundle).manifest.model.model_id
    assert run_over_ssh(bundle, "board", prompts=2).decode() == f"{name} --prompts 2"
    assert run_over_ssh(bundle, "board").decode() == f"{name} "
    assert not list(scratch.iterdir())


def test_what_goes_wrong_is_said(bundle: Path, board, tmp_path, monkeypatch):
    scratch = board(2)
    with pytest.raises(DeviceError, match=r"`satchel parity .*failed on board.*too old.*0.1.0"):
        run_over_ssh(bundle, "board")
    assert not list(scratch.iterdir())
    with pytest.raises(DeviceError, match=r"nowhere cannot be reached over ssh.*Could not resolve"):
        run_over_ssh(bundle, "nowhere")
    with pytest.raises(DeviceError, match=r"failed on board.*not found.*--remote-satchel"):
        run_over_ssh(bundle, "board", satchel="satchel-of-old")
    for host in ("", "-oProxyCommand=date"):
        with pytest.raises(UsageError, match="no host"):
            run_over_ssh(bundle, host)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="no ssh on this machine"):
        run_over_ssh(bundle, "board")
