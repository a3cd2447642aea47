"""Parity on a phone over adb: the bundle goes into the sample app's folder, its parity test runs, its file comes back.

The app and its test package must be installed; sample_apps/android says how. The bundle stays on the phone, where the
app lists it; the parity file is removed once it is here.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

from satchel.devices.detect.android import adb, choose, parse_devices
from satchel.devices.errors import DeviceError
from satchel.runtime.bundle import SUFFIX, open_bundle
from satchel.runtime.errors import UsageError

APP = "ai.satchel.sample"
TEST = f"{APP}.test"
RUNNER = f"{TEST}/{APP}.ParityInstrumentation"
FILES = f"/sdcard/Android/data/{APP}/files"
BUNDLES, RESULTS = f"{FILES}/bundles", f"{FILES}/parity"
INSTALL = "build and install the app and its test: sample_apps/android/README.md"
HOURS = 4 * 3600


def run_over_adb(bundle: Path, serial: str | None = None, *, prompts: int | None = None) -> bytes:
    """Replays a bundle on an attached phone.

    Args:
        bundle: a folder here; it is checked before it is sent.
        serial: which phone, as adb devices names it; needed only where there are several.
        prompts: only the first so many.

    Returns:
        The bytes of its parity file.

    Raises:
        BundleError: the bundle is not whole.
        UsageError: a name of the bundle that cannot be one on the phone.
        DeviceError: no adb, no phone that may be asked, no app, or its test failed.
    """
    opened = open_bundle(bundle)
    name = bundle.resolve().name.removesuffix(SUFFIX)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        wanted = "letters, digits, dots, hyphens and underscores"
        raise UsageError(
            "the bundle's name cannot be one on a phone", got=name, wanted=wanted, hint="rename the folder"
        )
    phone = _Phone(choose(parse_devices(adb("devices")), serial))
    for package in (APP, TEST):
        phone.needs(package)
    place = f"{BUNDLES}/{name}{SUFFIX}"
    phone.shell(f"rm -rf {place} {RESULTS} && mkdir -p {BUNDLES}")
    phone.say("push", str(bundle.resolve()), place, seconds=HOURS)
    phone.check_size(place, opened.bytes)
    phone.instrument(name, prompts)
    return phone.result()


class _Phone:
    """An attached phone."""

    def __init__(self, serial: str) -> None:
        self.serial = serial

    def say(self, *arguments: str, seconds: float = 60) -> str:
        return adb("-s", self.serial, *arguments, timeout=seconds)

    def shell(self, command: str, seconds: float = 60) -> str:
        return self.say("shell", command, seconds=seconds)

    def needs(self, package: str) -> None:
        """Raises DeviceError where a package is not installed."""
        listed = self.shell(f"pm list packages {package}").split()
        if f"package:{package}" not in listed:
            raise DeviceError(f"{package} is not installed on {self.serial}", wanted=package, hint=INSTALL)

    def check_size(self, place: str, wanted: int) -> None:
        """Raises DeviceError where the phone has fewer bytes than were sent: it is full, say."""
        sizes = self.shell(f"find {shlex.quote(place)} -type f ! -name parity.json -exec stat -c %s {{}} +").split()
        got = sum(int(size) for size in sizes if size.isdigit())
        if got != wanted:
            hint = "is there room on the phone? Start the app once, so that its folder exists"
            raise DeviceError("the bundle did not arrive whole", got=f"{got} bytes", wanted=wanted, hint=hint)

    def instrument(self, name: str, prompts: int | None) -> None:
        """Starts the parity test and waits for its end."""
        some = f" -e prompts {prompts}" if prompts else ""
        said = self.shell(f"am instrument -w -e bundle {name}{some} {RUNNER}", seconds=HOURS)
        if "INSTRUMENTATION_CODE: -1" in said and "INSTRUMENTATION_FAILED" not in said:
            return
        raise DeviceError(f"the app's parity test failed on {self.serial}", got=_reason(said), hint="see adb logcat")

    def result(self) -> bytes:
        """The parity file, which then is removed from the phone."""
        found = [line for line in self.shell(f"ls {RESULTS}").split() if re.fullmatch(r"parity-[\w.-]+\.json", line)]
        if len(found) != 1:
            raise DeviceError("the app's parity test wrote no file", got=found or "none", wanted="parity-<device>.json")
        with tempfile.TemporaryDirectory() as here:
            self.say("pull", f"{RESULTS}/{found[0]}", f"{here}/parity.json", seconds=600)
            self.shell(f"rm -f {RESULTS}/{found[0]}")
            return Path(here, "parity.json").read_bytes()


def _reason(said: str) -> str:
    """Of what `am instrument` prints, the lines that say why it failed."""
    telling = [line.strip() for line in said.splitlines() if re.search(r"Msg=|FAILED|Error|Exception|error=", line)]
    return "; ".join(telling[:4])[:600] or said.strip()[-300:] or "no answer"
