"""What the iOS app rests on, as far as no Swift is needed: its Xcode project, its vectors, real packages."""

from __future__ import annotations

import json
import plistlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import coremltools as ct
import pytest

from satchel.runtime.backends.coreml import calls_of
from satchel.runtime.bundle import Bundle
from satchel.runtime.embed.apps import find_app

HERE = Path(__file__).parent
IOS = HERE.parent.parent / "sample_apps" / "ios"
VECTORS = IOS.parent / "vectors"
KIT = IOS / "Sources" / "SatchelKit"
sys.path.insert(0, str(HERE))
from coreml_calls import CONTEXT, FORMS, bundles, record  # noqa: E402
from jinja_cases import text as jinja_text  # noqa: E402
from xcode_project import Project, parse  # noqa: E402

sys.path.remove(str(HERE))


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(IOS / "App" / "Satchel.xcodeproj")


def test_every_path_of_the_project_exists_and_every_source_is_built(project: Project) -> None:
    assert project.dangling() == []
    files = project.files()
    assert [str(path) for path in files.values() if not path.exists()] == []
    built = {}
    for name, folder in (("Satchel", "Sources"), ("SatchelParityTests", "Tests")):
        built[name] = {files[key] for key in project.built(project.target(name), "PBXSourcesBuildPhase")}
        assert built[name] == set((IOS / "App" / folder).glob("*.swift")), name
    resources = {files[key].name for key in project.built(project.target("Satchel"), "PBXResourcesBuildPhase")}
    assert resources == {"Assets.xcassets", "Bundles"}
    assert find_app(IOS).resources == "App/Bundles"  # where `satchel embed` puts bundles
    folder = next(o for o in project.objects.values() if o.get("path") == "Bundles")
    assert folder["lastKnownFileType"] == "folder"  # copied as it is, bundles and all


def test_the_project_takes_the_package_and_its_plist(project: Project) -> None:
    (package,) = project.of_kind("XCLocalSwiftPackageReference").values()
    manifest = (project.folder / package["relativePath"] / "Package.swift").read_text()
    for name in ("Satchel", "SatchelParityTests"):
        (product,) = [project.objects[key] for key in project.built(project.target(name), "PBXFrameworksBuildPhase")]
        assert f'.library(name: "{product["productName"]}"' in manifest
    oldest = re.search(r"\.iOS\(\.v(\d+)\)", manifest)
    assert oldest is not None
    assert {s["IPHONEOS_DEPLOYMENT_TARGET"] for s in project.settings(project.root)} == {f"{oldest[1]}.0"}
    for settings in project.settings(project.target("Satchel")):
        plist = plistlib.loads((project.folder / settings["INFOPLIST_FILE"]).read_bytes())
        assert plist["UIFileSharingEnabled"] and plist["LSSupportsOpeningDocumentsInPlace"]
        (declared,) = plist["UTExportedTypeDeclarations"]
        source = (IOS / "App" / "Sources" / "BundleScreen.swift").read_text()
        assert f'exportedAs: "{declared["UTTypeIdentifier"]}"' in source
        assert declared["UTTypeTagSpecification"]["public.filename-extension"] == ["satchel"]


def test_the_scheme_runs_the_app_and_tests_it_on_a_device(project: Project) -> None:
    scheme = ET.parse(IOS / "App" / "Satchel.xcodeproj" / "xcshareddata" / "xcschemes" / "Satchel.xcscheme").getroot()
    named = {r.get("BlueprintIdentifier"): r.get("BlueprintName") for r in scheme.iter("BuildableReference")}
    assert named == {key: t["name"] for key, t in project.of_kind("PBXNativeTarget").items()}
    assert [r.get("BlueprintName") for r in scheme.findall("TestAction//BuildableReference")] == ["SatchelParityTests"]
    for settings in project.settings(project.target("SatchelParityTests")):
        assert settings["TEST_HOST"].endswith("/Satchel")


def test_what_is_no_property_list_is_told() -> None:
    assert parse('{a = (1, "b\\"c", {x = y;}); /* z */ }') == {"a": ["1", 'b"c', {"x": "y"}]}
    for bad in ("{a = 1}", "{a = 1; a = 2;}", "(a b)", "{a = 1;} b", "{a = §;}"):
        with pytest.raises((ValueError, IndexError)):
            parse(bad)


def test_the_vectors_are_those_of_the_runtime() -> None:
    assert (KIT / "Resources" / "limits.json").read_bytes() == (VECTORS / "limits.json").read_bytes()
    committed = (IOS / "Tests" / "SatchelKitTests" / "Resources" / "jinja.json").read_text(encoding="utf-8")
    assert committed == jinja_text(), "python tests/sample_apps/jinja_cases.py FILE"


def test_the_scripts_can_be_read() -> None:
    for name in ("swift_toolchain.sh", "test_ios.sh", "check_ios_app.sh"):
        path = HERE.parent.parent / "tools" / name
        assert subprocess.run(["sh", "-n", str(path)], capture_output=True, check=False).returncode == 0, name
        assert path.stat().st_mode & 0o111, name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return bundles(tmp_path_factory.mktemp("coreml"))


TYPES = {"float16": "FLOAT16", "float32": "FLOAT32", "int32": "INT32"}
"""Names of the manifest, which ElementType has too -> Core ML's."""


def signature(package: Path, function: str) -> dict[str, dict[str, tuple[list[int], str]]]:
    """Of a function, as the package itself says: kind -> name -> shape and type."""
    description = ct.utils.load_spec(str(package)).description
    found = next((f for f in description.functions if f.name == function), None)
    if found is None:
        assert not description.functions and function == "main"
        found = description
    return {
        "inputs": {f.name: _array(f.type.multiArrayType) for f in found.input},
        "outputs": {f.name: _array(f.type.multiArrayType) for f in found.output},
        "states": {f.name: _array(f.type.stateType.arrayType) for f in found.state},
    }


def _array(kind: Any) -> tuple[list[int], str]:
    name = ct.proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(kind.dataType)
    return [int(d) for d in kind.shape], name


@pytest.mark.parametrize("form", FORMS)
def test_packages_are_what_the_backend_calls(made: dict[str, Bundle], form: str) -> None:
    """Names, shapes, types, functions and states of real packages, by the manifest and by what Swift spells out."""
    entry = made[form].manifest.entry
    spelled, types = _spelled()
    assert entry.options["cache"] == ("io" if form.endswith("io") else "state") and entry.options["mask"] == "position"
    assert {entry.options["cache"], entry.options["mask"], entry.options["compute"]} <= spelled
    assert (entry.chunks is not None) == form.startswith("chunks")
    for chunk in calls_of(entry):
        for role, function in chunk.functions.items():
            assert role in spelled
            real = signature(made[form].folder / chunk.path, function)
            length = entry.prefill_length if role == "prefill" else 1
            for kind, specs in (("inputs", chunk.inputs), ("outputs", chunk.outputs), ("states", chunk.states)):
                assert {s.name for s in specs} == real[kind].keys() <= spelled, (function, kind)
                for spec in specs:
                    shape, dtype = real[kind][spec.name]
                    assert dtype == TYPES[spec.dtype] and spec.dtype in types
                    assert shape == _resized(spec.name, spec.shape, length, entry.options["layout"])


def _spelled() -> tuple[set[str], list[str]]:
    """The texts that the Swift code spells out, and the types of numbers that it knows."""
    source = "".join(path.read_text() for path in [*KIT.glob("CoreML/*.swift"), KIT / "Bundle" / "Chunks.swift"])
    types = re.search(r"enum ElementType[^{]*\{\s*case ([^\n]+)", source)
    assert types is not None
    return set(re.findall(r'"(\w+)"', source)), types[1].split(", ")


def _resized(name: str, shape: tuple[Any, ...], length: int, layout: str) -> list[int]:
    """The shape that the manifest gives for one id, for `length` of them."""
    resized = [int(d) for d in shape]
    if name in ("keyCache", "valueCache"):
        assert len(resized) == 4 and resized[2] == CONTEXT
    elif name in ("presentKeys", "presentValues"):
        resized[2] = length
    elif name in ("hiddenStates", "outputHiddenStates"):
        resized[3 if layout == "channels_first" else 1] = length
    elif name != "position":
        resized[1] = length
    return resized


def test_recorded_calls_are_those_of_the_packages(made: dict[str, Bundle]) -> None:
    """What SatchelKit's chain is held to: every function is called, with inputs that the real package takes."""
    for form, bundle in made.items():
        value, data = record(bundle)
        assert json.loads(json.dumps(value)) == value and data
        called = set()
        for call in value["calls"]:
            real = signature_once(bundle.folder / call["path"], call["function"])
            for kind in ("inputs", "outputs"):
                found = {name: (place["shape"], TYPES[place["dtype"]]) for name, place in call[kind].items()}
                assert found == real[kind], (form, call["function"], kind)
            called.add((call["path"], call["function"]))
        chunks = calls_of(bundle.manifest.entry)
        assert called == {(c.path, f) for c in chunks for f in c.functions.values()}


_SIGNATURES: dict[tuple[Path, str], dict[str, Any]] = {}


def signature_once(package: Path, function: str) -> dict[str, Any]:
    """signature, read from disk once."""
    if (package, function) not in _SIGNATURES:
        _SIGNATURES[package, function] = signature(package, function)
    return _SIGNATURES[package, function]
