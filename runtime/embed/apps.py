"""Which kind of app project a folder is, and where in it models go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from satchel.runtime.errors import UsageError

Kind = Literal["ios", "android", "web"]
SAMPLES: tuple[Kind, ...] = ("ios", "android", "web")
"""The sample apps, by the folder in sample_apps/ that each lies in."""

BUNDLES = "Bundles"
"""The folder that an Xcode project takes as a resource; where it exists already, it is that one."""

APPLICATION = re.compile(r"(com\.android\.application|libs\.plugins\.[\w.]*[aA]pplication)\b(?!.*apply\s*\(?false)")
"""The plug-in of Android apps, by its id or by a version catalog's name; `apply false` only names the version."""

RUNS: dict[Kind, tuple[str, ...]] = {
    "ios": ("coreml", "executorch", "onnx"),
    "android": ("onnx", "executorch"),
    "web": ("onnx",),
}
"""Formats that have a runtime on a platform."""
SAMPLE_RUNS: dict[Kind, tuple[str, ...]] = RUNS | {"ios": ("coreml",)}
"""Those that our own app of that platform can run."""


@dataclass(frozen=True)
class App:
    """A project.

    Attributes:
        kind: "ios" (Xcode), "android" (Gradle) or "web".
        root: its folder.
        resources: folder, relative to root, that holds bundles which ship inside the app.
        module: of Gradle: folder of the module that is the app, relative to root; "" for the others.
        sample: whether it is one of our sample apps.
    """

    kind: Kind
    root: Path
    resources: str
    module: str = ""
    sample: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats that it can run."""
        return (SAMPLE_RUNS if self.sample else RUNS)[self.kind]


def find_app(app: str | Path, start: Path | None = None) -> App:
    """The project that is meant.

    Args:
        app: "ios", "android" or "web" for the sample app of Satchel's repository; else a project's folder.
        start: where to look upwards for sample_apps/; by default the current folder.

    Raises:
        UsageError: there is no such folder, or it is no project that is known.
    """
    if str(app) in SAMPLES:
        return _sample(str(app), (start or Path.cwd()).resolve())
    root = Path(app)
    if not root.is_dir():
        wanted = f"{', '.join(SAMPLES)}, or a project's folder"
        raise UsageError(
            "no such app", got=app, wanted=wanted, hint="give the folder of an Xcode, Gradle or web project"
        )
    return _recognised(root, sample=(root.resolve().parent.name, root.resolve().name) in _sample_names())


def _sample_names() -> set[tuple[str, str]]:
    return {("sample_apps", name) for name in SAMPLES}


def _sample(name: str, start: Path) -> App:
    for folder in (start, *start.parents):
        if (folder / "sample_apps" / name).is_dir():
            return _recognised(folder / "sample_apps" / name, sample=True)
    hint = "run this inside Satchel's repository, or give the folder of your own project: --app PATH"
    raise UsageError(
        f"the sample app for {name} is not here", got=start, wanted="a folder sample_apps above", hint=hint
    )


def _recognised(root: Path, *, sample: bool) -> App:
    if gradle_file(root, "settings"):
        module = _app_module(root)
        return App("android", root, f"{module}/src/main/assets/bundles".lstrip("/"), module, sample)
    projects = sorted(path for pattern in ("*.xcodeproj", "*/*.xcodeproj") for path in root.glob(pattern))
    if projects:
        beside = projects[0].parent
        made = next((path for path in (beside / BUNDLES, *sorted(beside.glob(f"*/{BUNDLES}"))) if path.is_dir()), None)
        return App("ios", root, (made or beside / BUNDLES).relative_to(root).as_posix(), sample=sample)
    if (root / "index.html").is_file():
        served = "public/bundles" if (root / "package.json").is_file() else "bundles"
        return App("web", root, served, sample=sample)
    raise UsageError(
        "not an app project that is known", got=root,
        wanted="an .xcodeproj, a settings.gradle or settings.gradle.kts, or an index.html",
        hint="give the folder that Xcode, Android Studio or the web server opens",
    )  # fmt: skip


def gradle_file(folder: Path, name: str) -> Path | None:
    """settings.gradle.kts, build.gradle and so on: the one that a folder has, or None."""
    return next((p for p in (folder / f"{name}.gradle.kts", folder / f"{name}.gradle") if p.is_file()), None)


def _app_module(root: Path) -> str:
    folders = [root / "app", root, *sorted(path for path in root.iterdir() if path.is_dir() and path.name != "app")]
    for folder in folders:
        build = gradle_file(folder, "build")
        if build and APPLICATION.search(build.read_text(encoding="utf-8")):
            return "" if folder == root else folder.name
    raise UsageError(
        "no module of this Gradle project is an Android app", got=root,
        wanted="a build.gradle(.kts) with the plug-in com.android.application",
        hint="give the project's outermost folder",
    )  # fmt: skip
