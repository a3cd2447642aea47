"""Fetches the emulator into a cache folder, as an ordinary user: nothing of the system is changed.

apt-get runs over lists of its own in that folder, so that arm64 need not be an architecture of the system, and checks
each package against Debian's signed lists; pip checks wheels against the hashes in packages.py.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from satchel.runtime.emulation import packages
from satchel.runtime.errors import MissingPackageError, OutputError, UsageError

Told = Callable[[str], None]
INSTALL = "satchel parity emulator"
MINUTES = 30 * 60


def cache_folder() -> Path:
    """Where the emulator lies once it is installed; another list of packages is another folder."""
    import platformdirs

    listed = repr((packages.SUITE, packages.ARM64_PACKAGES, sorted(packages.WHEELS.items())))
    digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("satchel", appauthor=False)) / f"emulator-{digest}"


def is_installed(folder: Path | None = None) -> bool:
    """Whether the emulator is there."""
    return ((folder or cache_folder()) / "root").is_dir()


def emulator_program(folder: Path) -> str:
    """qemu for aarch64: the fetched one, or the system's."""
    fetched = folder / "qemu-aarch64"
    return str(fetched) if fetched.is_file() else next(filter(None, map(shutil.which, packages.ON_PATH)), str(fetched))


def remove(folder: Path | None = None) -> None:
    """Removes the emulator."""
    shutil.rmtree(folder or cache_folder(), ignore_errors=True)


def install(folder: Path | None = None, mirror: str = packages.MIRROR, told: Told = lambda step: None) -> Path:
    """Fetches and unpacks everything, unless it is there.

    Args:
        folder: of the emulator; cache_folder() by default.
        mirror: of Debian.
        told: each step, in words.

    Returns:
        The folder.

    Raises:
        MissingPackageError: this system lacks apt or Debian's keys, or something could not be fetched.
        OutputError: the folder cannot be written.
        UsageError: an address that is none.
    """
    target = folder or cache_folder()
    if is_installed(target):
        return target
    if not mirror.startswith(("http://", "https://")) or mirror.split() != [mirror]:
        raise UsageError("that is no mirror of Debian", got=mirror, wanted=f"such as {packages.MIRROR}")
    _check_system()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            _fill(made, Path(scratch), mirror, told)
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    except OSError as error:
        raise OutputError("the emulator cannot be written", got=error, hint="free disk space in the cache") from error
    return target


def _check_system() -> None:
    for program in ("apt-get", "dpkg-deb", "dpkg"):
        if shutil.which(program) is None:
            what = "the emulator is put together from Debian's packages, and this system has no apt"
            raise MissingPackageError(what, got=f"no {program}", hint="run this on Debian or Ubuntu, or use --ssh")
    if not Path(packages.KEYRING).is_file():
        raise MissingPackageError(
            "Debian's keys are not here, so its packages cannot be checked", wanted=packages.KEYRING,
            hint="apt-get install debian-archive-keyring",
        )  # fmt: skip


def _fill(made: Path, scratch: Path, mirror: str, told: Told) -> None:
    apt = _Apt(scratch / "apt", mirror)
    told("reading Debian's lists")
    apt.run("update", "--error-on=any")  # a list that is missing is no warning here
    if not any(map(shutil.which, packages.ON_PATH)):
        told("fetching qemu")
        (found,) = apt.fetch([f"{packages.EMULATOR}:{apt.architecture}"], scratch / "qemu")
        _run(["dpkg-deb", "-x", str(found), str(scratch / "unpacked")], "qemu cannot be unpacked")
        shutil.move(scratch / "unpacked" / packages.EMULATOR_BINARY, made / "qemu-aarch64")
    told("fetching Python for arm64")
    for package in apt.fetch([f"{name}:arm64" for name in packages.ARM64_PACKAGES], scratch / "debs"):
        _run(["dpkg-deb", "-x", str(package), str(made / "root")], f"{package.name} cannot be unpacked")
    told("fetching onnxruntime for aarch64")
    for wheel in _wheels(scratch / "wheels"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made / "root" / "site")


class _Apt:
    """apt-get over lists in a folder of its own.

    Attributes:
        architecture: of this machine, as Debian calls it.
    """

    def __init__(self, folder: Path, mirror: str) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        sources = folder / "sources.list"
        sources.write_text(f"deb [signed-by={packages.KEYRING}] {mirror} {packages.SUITE} main\n", encoding="utf-8")
        self.architecture = _run(["dpkg", "--print-architecture"], "dpkg does not answer").strip()
        both = dict.fromkeys((self.architecture, "arm64"))
        settings = {
            "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-", "Dir::State": folder,
            "Dir::State::lists": folder / "lists", "Dir::State::status": "/dev/null", "Dir::Cache": folder / "cache",
            "APT::Architecture": self.architecture, "APT::Architectures": ",".join(both), "Debug::NoLocking": "1",
            "APT::Sandbox::User": "", "APT::Get::AllowUnauthenticated": "false", "Acquire::Languages": "none",
        }  # fmt: skip
        self._options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def run(self, *arguments: str, folder: Path | None = None) -> None:
        """One command of apt-get."""
        _run(["apt-get", "-q", *self._options, *arguments], f"apt-get {arguments[0]} failed", folder)

    def fetch(self, names: Sequence[str], folder: Path) -> list[Path]:
        """Downloads packages into a new folder, each checked against the signed lists."""
        folder.mkdir()
        self.run("download", *names, folder=folder)
        return sorted(folder.glob("*.deb"))


def _wheels(folder: Path) -> list[Path]:
    folder.mkdir()
    listed = "".join(f"{name} --hash=sha256:{digest}\n" for name, digest in packages.WHEELS.items())
    (folder / "requirements.txt").write_text(listed, encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp", "-d", str(folder),
        "-r", str(folder / "requirements.txt"),
    ]  # fmt: skip
    for platform in packages.PLATFORMS:
        command += ["--platform", platform]
    _run(command, "wheels for aarch64 cannot be fetched")
    return sorted(folder.glob("*.whl"))


def _run(command: Sequence[str], what: str, folder: Path | None = None) -> str:
    """What a program prints; MissingPackageError where it fails."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=MINUTES,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MissingPackageError(what, got=error, hint=f"is there a network? {INSTALL} goes on") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise MissingPackageError(what, got="; ".join(lines[-3:])[-600:], hint=f"see that the network works: {INSTALL}")
    return done.stdout
