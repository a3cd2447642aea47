#!/usr/bin/env python3
"""An adb with one phone behind it, which is a folder: the same commands, messages and exit codes.

SATCHEL_PHONE: the folder; its state.json says what the phone is like: `devices` (lines of `adb devices`), `packages`,
`instrument` ("good", or what `am instrument` prints), `lose` (bytes that a push loses), `report` (a parity file that
the app writes). Every command is appended to log.jsonl there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

PHONE = Path(os.environ["SATCHEL_PHONE"])
STATE = json.loads((PHONE / "state.json").read_text())


def here(path: str) -> Path:
    assert path.startswith("/sdcard/"), path
    return PHONE / path.removeprefix("/")


def push(source: str, target: str) -> str:
    place = here(target)
    shutil.copytree(source, place / Path(source).name if place.is_dir() else place)
    if STATE.get("lose"):
        victim = next(p for p in sorted(place.rglob("*")) if p.is_file() and p.stat().st_size > STATE["lose"])
        victim.write_bytes(victim.read_bytes()[: -STATE["lose"]])
    return f"{source}/: 12 files pushed, 0 skipped.\n"


def pull(source: str, target: str) -> str:
    shutil.copy(here(source), target)
    return f"{source}: 1 file pulled, 0 skipped.\n"


def instrument(arguments: list[str]) -> str:
    assert arguments[0] == "-w" and arguments[1:-1:3] == ["-e"] * (len(arguments) // 3), arguments
    given, runner = dict(zip(arguments[2:-1:3], arguments[3:-1:3], strict=True)), arguments[-1]
    name = given.pop("bundle")
    assert given in ({}, {"prompts": "2"}), given
    assert runner == "ai.satchel.sample.test/ai.satchel.sample.ParityInstrumentation", runner
    if STATE.get("instrument", "good") != "good":
        return str(STATE["instrument"])
    files = here("/sdcard/Android/data/ai.satchel.sample/files")
    assert (files / "bundles" / f"{name}.satchel" / "manifest.json").is_file(), "the bundle is not where the app looks"
    (files / "parity").mkdir(exist_ok=True)
    shutil.copy(STATE["report"], files / "parity" / "parity-pixel-9.json")
    return "INSTRUMENTATION_RESULT: parity=parity-pixel-9.json\nINSTRUMENTATION_CODE: -1\n"


def shell(line: str) -> str:
    said = ""
    for command in line.split(" && "):
        words = shlex.split(command)
        match words:
            case ["pm", "list", "packages", wanted]:
                said += "".join(f"package:{p}\n" for p in STATE["packages"] if wanted in p)
            case ["rm", "-rf" | "-f", *paths]:
                for place in map(here, paths):
                    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            case ["mkdir", "-p", path]:
                here(path).mkdir(parents=True, exist_ok=True)
            case ["find", path, *_]:
                files = [p for p in here(path).rglob("*") if p.is_file() and p.name != "parity.json"]
                said += "".join(f"{p.stat().st_size}\n" for p in files)
            case ["am", "instrument", *rest]:
                said += instrument(rest)
            case ["ls", path]:
                said += "".join(f"{p.name}\n" for p in sorted(here(path).iterdir())) if here(path).is_dir() else ""
            case _:
                sys.exit(f"/system/bin/sh: {words[0]}: not found")
    return said


def main(arguments: list[str]) -> str:
    with (PHONE / "log.jsonl").open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    if arguments == ["devices"]:
        return "List of devices attached\n" + "".join(f"{line}\n" for line in STATE["devices"]) + "\n"
    assert arguments[0] == "-s", arguments
    if not any(re.match(rf"{arguments[1]}\tdevice$", line) for line in STATE["devices"]):
        sys.exit(f"error: device '{arguments[1]}' not found")
    return {"shell": shell, "push": push, "pull": pull}[arguments[2]](*arguments[3:])


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
