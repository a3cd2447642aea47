"""What the Android app relies on: signatures of real bundles, pinned versions, resources that refer to each other."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import onnx
import onnxruntime
import pytest

from satchel.runtime.bundle import Bundle, open_bundle
from satchel.runtime.embed.apps import find_app
from satchel.runtime.remote import android as remote

HERE = Path(__file__).parent
APPS = HERE.parent.parent / "sample_apps"
ANDROID = APPS / "android"
MAIN = ANDROID / "app/src/main"
KOTLIN = ANDROID / "onnx/src/main/kotlin/ai/satchel/onnx/OrtBackend.kt"
BUNDLES = [next(folder.glob("*.satchel")) for folder in (APPS / "vectors/bundle", ANDROID / "onnx/src/test/bundle")]
NAMESPACE = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(params=BUNDLES, ids=["palette", "fp32"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.param)


def _constant(name: str) -> str:
    found = re.search(rf'const val {name} = "([^"]+)"', KOTLIN.read_text())
    assert found, name
    return found[1]


def test_ort_backend_relies_on_what_the_model_file_has(bundle: Bundle) -> None:
    entry = bundle.manifest.entry
    session = onnxruntime.InferenceSession(str(bundle.folder / entry.path), providers=["CPUExecutionProvider"])
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    past, present, logits = (_constant(name) for name in ("PAST", "PRESENT", "LOGITS"))
    caches = [name for name in inputs if name.startswith(past)]
    assert set(inputs) == {"input_ids", "attention_mask", *caches} and caches
    assert set(outputs) == {logits, *(name.replace(past, present) for name in caches)}
    assert all(f'"{name}" to' in KOTLIN.read_text() for name in inputs if name not in caches)
    for name in ("input_ids", "attention_mask"):
        assert inputs[name].type == "tensor(int64)" and len(inputs[name].shape) == 2
    for name in caches:  # createTensor of a FloatBuffer, of shape [1, spec.shape[1], context, spec.shape[3]]
        assert inputs[name].type == "tensor(float)" and outputs[name.replace(past, present)].type == "tensor(float)"
        assert [type(size) for size in inputs[name].shape] == [str, int, str, int]
    assert outputs[logits].type == "tensor(float)" and outputs[logits].shape[2] == bundle.manifest.tokens.vocab_size
    # The manifest says the same as the file, since it is the manifest that the app reads.
    assert [spec.name for spec in entry.inputs] == list(inputs)
    assert [list(spec.shape) for spec in entry.inputs] == [node.shape for node in inputs.values()]
    assert {spec.dtype for spec in entry.inputs} == {"int64", "float32"}


def test_past_and_present_may_be_one_buffer(bundle: Bundle) -> None:
    """The graph appends in place: the only operator that takes both is the one that allows it."""
    graph = onnx.load(str(bundle.folder / bundle.manifest.entry.path), load_external_data=False).graph
    users = [node for node in graph.node if any(name.startswith("past_key_values.") for name in node.input)]
    assert users and {node.op_type for node in users} == {"GroupQueryAttention"}
    for node in users:
        assert node.output[1] == node.input[3].replace("past_key_values.", "present.")
        assert node.output[2] == node.input[4].replace("past_key_values.", "present.")


def _pinned() -> dict[str, str]:
    text = (ANDROID / "gradle/libs.versions.toml").read_text()
    return dict(re.findall(r'^(\w+) = "([\d.]+)"', text, re.MULTILINE))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))[:2]


def test_the_pinned_runtimes_run_what_exports_write(bundle: Bundle) -> None:
    pinned = _pinned()
    assert _numbers(pinned["onnxruntime"]) >= _numbers(str(bundle.manifest.entry.options["minimum_onnxruntime"]))
    script = (HERE.parents[1] / "tools/android_toolchain.sh").read_text()
    assert f'ORT_VERSION="{pinned["onnxruntime"]}"' in script, "the library that the tests run is the pinned one"
    assert _numbers(pinned["kotlin"])[0] == 2 and pinned["junit"] in script.replace("junit5_", "")


def test_gradle_refers_to_what_there_is() -> None:
    settings = (ANDROID / "settings.gradle.kts").read_text()
    modules = re.findall(r'":(\w+)"', settings)
    assert modules == ["core", "onnx", "app"]
    catalog = (ANDROID / "gradle/libs.versions.toml").read_text()
    for module in modules:
        build = (ANDROID / module / "build.gradle.kts").read_text()
        for alias in re.findall(r"libs\.(?!plugins)([\w.]+)\)", build):
            assert f"{alias.replace('.', '-')} = " in catalog
        for alias in re.findall(r"libs\.plugins\.([\w.]+)\)", build):
            assert f"{alias.replace('.', '-')} = " in catalog
    build = (ANDROID / "app/build.gradle.kts").read_text()
    assert "minSdk = 26" in build and "useLegacyPackaging = false" in build and "androidx" not in build.lower()
    core = (ANDROID / "core/build.gradle.kts").read_text().replace("testImplementation", "")
    assert not re.search(r"(implementation|api)\(", core, re.IGNORECASE)


def test_other_tools_find_the_app_and_its_test() -> None:
    app = find_app(ANDROID)
    assert (app.kind, app.resources) == ("android", "app/src/main/assets/bundles")
    build = (ANDROID / "app/build.gradle.kts").read_text()
    assert f'applicationId = "{remote.APP}"' in build
    runner = remote.RUNNER.split("/")[1]
    assert f'testInstrumentationRunner = "{runner}"' in build
    source = ANDROID / "app/src/androidTest/kotlin" / f"{runner.replace('.', '/')}.kt"
    assert "class ParityInstrumentation : Instrumentation()" in source.read_text()
    places = (MAIN / "kotlin/ai/satchel/sample/Places.kt").read_text()
    assert remote.BUNDLES.endswith("/files/bundles") and remote.RESULTS.endswith("/files/parity")
    assert 'getExternalFilesDir(null)?.let { BundleStore(File(it, "bundles"))' in places and '"parity")' in places
    readme = (ANDROID / "README.md").read_text()
    assert remote.RUNNER in readme and remote.BUNDLES in readme


def _parsed(folder: str) -> dict[Path, ElementTree.Element]:
    found = {path: ElementTree.parse(path).getroot() for path in sorted((MAIN / "res").glob(f"{folder}*/*.xml"))}
    assert found
    return found


def _names() -> dict[str, set[str]]:
    """What there is of each kind of resource."""
    kinds, values = ("string", "color", "style"), _parsed("values").values()
    known = {kind: {str(e.get("name")) for root in values for e in root.iter(kind)} for kind in kinds}
    known |= {kind: {path.stem for path in _parsed(kind)} for kind in ("layout", "drawable", "xml")}
    given = {value for root in _parsed("layout").values() for e in root.iter() for value in e.attrib.values()}
    return known | {"id": {value.removeprefix("@+id/") for value in given if value.startswith("@+id/")}}


def test_resources_refer_to_what_there_is() -> None:
    known = _names()
    text = "\n".join(path.read_text() for path in [*(MAIN / "res").rglob("*.xml"), MAIN / "AndroidManifest.xml"])
    code = "\n".join(path.read_text() for path in MAIN.rglob("*.kt"))
    used = set(re.findall(r'[">]@(\w+)/([\w.]+)["<]', text)) | set(re.findall(r"\bR\.(\w+)\.(\w+)", code))
    assert len(used) > 100
    assert not {(kind, name) for kind, name in used if name not in known[kind]}
    assert not known["string"] - {name for kind, name in used if kind == "string"}, "strings that nobody shows"


def test_dark_mode_has_every_color_and_the_manifest_every_class() -> None:
    roots = [ElementTree.parse(MAIN / f"res/{folder}/colors.xml").getroot() for folder in ("values", "values-night")]
    day, night = ({e.get("name") for e in root} for root in roots)
    assert day == night
    manifest = ElementTree.parse(MAIN / "AndroidManifest.xml").getroot()
    classes = [e.get(f"{NAMESPACE}name") for e in manifest.iter() if (e.get(f"{NAMESPACE}name") or "").startswith(".")]
    assert len(classes) == 3
    for name in classes:
        assert (MAIN / f"kotlin/ai/satchel/sample/{str(name).strip('.')}.kt").is_file()


def _said(element: ElementTree.Element) -> bool:
    return any(element.get(NAMESPACE + key) for key in ("text", "hint", "contentDescription", "textOff"))


def test_what_can_be_touched_says_what_it_is() -> None:
    """A screen reader has words for every control: its own, or of a label that names it."""
    for path, root in _parsed("layout").items():
        labelled = {(e.get(f"{NAMESPACE}labelFor") or "").split("/")[-1] for e in root.iter()}
        for element in root.iter():
            if element.tag in ("Button", "RadioButton", "ToggleButton", "EditText", "ProgressBar", "ImageButton"):
                name = (element.get(f"{NAMESPACE}id") or "").split("/")[-1]
                assert _said(element) or name in labelled, f"{path.name}: {name}"
    live = [
        e for root in _parsed("layout").values() for e in root.iter() if e.get(f"{NAMESPACE}accessibilityLiveRegion")
    ]
    names = {(e.get(f"{NAMESPACE}id") or "").split("/")[-1] for e in live}
    assert names >= {"error", "model", "progress_text", "speed", "verdict"}


@pytest.fixture(scope="module")
def jinja_cases() -> Any:
    sys.path.insert(0, str(HERE))
    try:
        module: ModuleType = importlib.import_module("jinja_expressions")
    finally:
        sys.path.remove(str(HERE))
    return module


def test_the_cases_of_the_template_interpreter_are_jinjas(jinja_cases: Any) -> None:
    assert jinja_cases.FILE.read_text(encoding="utf-8") == jinja_cases.text(), (
        "run tests/sample_apps/jinja_expressions.py"
    )
    cases = jinja_cases.cases()["cases"]
    assert len(cases) > 300 and sum(case["rendered"] is None for case in cases) > 30
