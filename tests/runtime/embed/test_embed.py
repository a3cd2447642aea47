"""Embedding puts the whole bundle where the project looks, changes nothing the second time, and can be undone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from satchel.cli.app import app as cli
from satchel.runtime.bundle import open_bundle
from satchel.runtime.embed import App, embed, find_app, gradle, layout, platforms, remove
from satchel.runtime.errors import BundleError, OutputError, UsageError

VECTORS = Path(__file__).parents[3] / "sample_apps/vectors/bundle"
KOTLIN = {
    "settings.gradle.kts": 'rootProject.name = "x"\ninclude(":phone")',
    "build.gradle.kts": 'plugins { id("com.android.application") version "8.7.0" apply false }\n',
    "library/build.gradle.kts": "plugins { alias(libs.plugins.android.library) }\n",
    "phone/build.gradle.kts": 'plugins { alias(libs.plugins.android.application) }\nandroid { namespace = "a.b" }\n',
}
GROOVY = {
    "settings.gradle": "include ':app'\r\n",
    "app/build.gradle": "plugins { id 'com.android.application' }\nandroid.androidResources.noCompress 'onnx'\n",
}
XCODE = {"Thing/Thing.xcodeproj/project.pbxproj": "// !$*UTF8*$!\n"}
VITE = {"package.json": "{}\n", "index.html": "<!doctype html>\n"}
PLAIN_PAGE = {"index.html": "<!doctype html>\n"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    source = next(VECTORS.glob("*.satchel"))
    return Path(shutil.copytree(source, tmp_path / source.name))


def project(folder: Path, files: dict[str, str]) -> App:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
    return find_app(folder)


def content(folder: Path) -> dict[str, str]:
    """Every file by its hash, and every empty folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()):
            found[path.relative_to(folder).as_posix()] = "empty"
    return found


PLACES = {
    "phone/src/main/assets/bundles": KOTLIN, "app/src/main/assets/bundles": GROOVY, "public/bundles": VITE,
    "bundles": PLAIN_PAGE,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_bundle_inside_the_app_is_whole_and_stays_as_it_is(tmp_path: Path, bundle: Path, place: str) -> None:
    app = project(tmp_path / "app", PLACES[place])
    before = content(app.root)
    first = embed(bundle, app)
    assert first.changed
    assert open_bundle(app.root / place / bundle.name).manifest == open_bundle(bundle).manifest
    assert not (app.root / place / bundle.name / "parity.json").exists()
    placed = content(app.root)
    again = embed(bundle, app)
    assert not again.changed and content(app.root) == placed
    (app.root / place / bundle.name / "LICENSE").write_text("altered")
    assert next(each.what for each in embed(bundle, app).done) == "replaced" and content(app.root) == placed
    remove(bundle.name.removesuffix(".satchel"), app)
    assert content(app.root) == before
    with pytest.raises(UsageError, match="no such bundle"):
        remove(bundle, app)


def test_gradle_files_get_what_is_missing_and_keep_the_rest(tmp_path: Path, bundle: Path) -> None:
    kotlin, groovy = project(tmp_path / "k", KOTLIN), project(tmp_path / "g", GROOVY)
    embed(bundle, kotlin)
    text = (kotlin.root / "phone/build.gradle.kts").read_text()
    assert text.startswith(KOTLIN["phone/build.gradle.kts"])
    assert 'android.androidResources.noCompress += listOf("onnx", "data", "pte")' in text
    embed(bundle, groovy)
    assert (groovy.root / "app/build.gradle").read_text() == GROOVY["app/build.gradle"]


@pytest.mark.parametrize("files", [KOTLIN, GROOVY])
def test_beyond_the_base_module_it_is_spread_over_packs(
    tmp_path: Path, bundle: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = project(tmp_path / "app", files)
    before = content(app.root)
    embed(bundle, app)
    sizes = sorted((path.stat().st_size for path in bundle.rglob("*") if path.is_file()), reverse=True)
    limits = {"android-base": 1000, "android-asset-pack": sizes[0] + 500, "android-total": 10**7}
    for module in (gradle, platforms):
        monkeypatch.setattr(module, "allowed", limits.__getitem__)
    done = embed(bundle, app)
    packs = sorted(path.name for path in app.root.glob("satchel_*"))
    assert len(packs) == -(-sum(sizes) // limits["android-asset-pack"]) and str(len(packs)) in done.way
    assert not (app.root / app.resources).exists(), "the copy inside the app has gone"
    merged = tmp_path / "merged"
    for pack in packs:
        shutil.copytree(app.root / pack / "src/main/assets/bundles", merged, dirs_exist_ok=True)
        held = [path for path in (app.root / pack / "src").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in held) <= limits["android-asset-pack"]
        build = next((app.root / pack).glob("build.gradle*"))
        assert f'"{pack}"' in build.read_text() and "com.android.asset-pack" in build.read_text()
        assert f'include(":{pack}")' in next(app.root.glob("settings.gradle*")).read_text()
        assert f'":{pack}"' in next((app.root / app.module).glob("build.gradle*")).read_text()
    assert open_bundle(merged / bundle.name).manifest == open_bundle(bundle).manifest
    placed = content(app.root)
    assert not embed(bundle, app).changed and content(app.root) == placed
    remove(bundle, app)
    assert content(app.root) == before
    limits["android-asset-pack"] = sizes[0] - 1
    with pytest.raises(UsageError, match="single file"):
        embed(bundle, app)
    assert content(app.root) == before


def test_a_pack_for_apples_tool(tmp_path: Path, bundle: Path) -> None:
    app = project(tmp_path / "app", XCODE)
    before = content(app.root)
    assert app.resources == "Thing/Bundles"
    embed(bundle, app)
    done = embed(bundle, app, "pack")
    assert not (app.root / "Thing/Bundles").exists()
    assert open_bundle(app.root / "BackgroundAssets" / bundle.name).manifest == open_bundle(bundle).manifest
    manifest = json.loads((app.root / f"BackgroundAssets/{bundle.stem}.json").read_text())
    assert manifest["fileSelectors"] == [{"directory": bundle.name}]
    assert any("ba-package" in step for step in done.steps)
    remove(bundle, app)
    assert content(app.root) == before


def test_a_folder_that_xcode_knows_already_is_used_and_stays(tmp_path: Path, bundle: Path) -> None:
    app = project(tmp_path / "app", XCODE | {"Thing/App/Bundles/README.md": "Bundles go here.\n"})
    before = content(app.root)
    embed(bundle, app)
    assert (app.root / "Thing/App/Bundles" / bundle.name / "manifest.json").is_file()
    remove(bundle, app)
    assert content(app.root) == before


def test_what_other_bundles_take_counts(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = project(tmp_path / "app", XCODE)
    size = open_bundle(bundle).bytes
    monkeypatch.setattr(platforms, "allowed", {"ios-app": int(1.5 * size)}.__getitem__)
    other = Path(shutil.copytree(bundle, bundle.with_name("other.satchel")))
    assert "inside" in embed(bundle, app).way and "Background" in embed(other, app).way


def test_a_web_app_learns_which_bundles_there_are(tmp_path: Path, bundle: Path) -> None:
    app = project(tmp_path / "app", VITE)
    other = Path(shutil.copytree(bundle, bundle.with_name("other.satchel")))
    embed(other, app)
    embed(bundle, app)
    listing = app.root / "public/bundles/index.json"
    assert json.loads(listing.read_text()) == {"bundles": sorted([bundle.name, other.name])}
    remove(bundle, app)
    assert json.loads(listing.read_text()) == {"bundles": ["other.satchel"]}


def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = project(tmp_path / "app", VITE)
    before = content(app.root)
    odd = Path(shutil.copytree(bundle, bundle.with_name("a\nb.satchel")))
    for thing, error in ((odd, UsageError), (tmp_path / "app", BundleError)):
        with pytest.raises(error):
            embed(thing, app)
    with pytest.raises(UsageError, match="no store"):
        embed(bundle, app, "pack")
    sample = project(tmp_path / "sample_apps/ios", XCODE)
    with pytest.raises(UsageError, match="cannot run onnx") as refused:
        embed(bundle, sample)
    assert "iphone" in refused.value.hint
    for folder in (tmp_path / "missing", bundle):
        with pytest.raises(UsageError):
            find_app(folder)
    with pytest.raises(UsageError, match="sample app"):
        find_app("web", start=tmp_path / "app")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="no space"):
        embed(bundle, app)
    assert content(app.root) == before


def test_the_command(tmp_path: Path, bundle: Path) -> None:
    app = project(tmp_path / "app", VITE)
    run = CliRunner().invoke
    first = run(cli, ["embed", str(bundle), "--app", str(app.root)])
    assert first.exit_code == 0 and "public/bundles/" in first.output and "?bundle=bundles/" in first.output
    second = run(cli, ["embed", str(bundle), "--app", str(app.root), "--json"])
    assert json.loads(second.output)["changed"] is False
    assert "removed" in run(cli, ["embed", bundle.stem, "--app", str(app.root), "--remove"]).output
    assert run(cli, ["embed", str(bundle), "--app", str(app.root), "--as", "mail"]).exit_code == 2


def test_limits_are_those_of_the_forecast() -> None:
    assert layout.allowed("android-base") == 200_000_000 and layout.allowed("ios-app") == 4_000_000_000
