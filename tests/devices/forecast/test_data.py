"""The data files are strict: what is missing, unknown, contradictory or hostile gives a DeviceError that names it."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.devices.errors import DeviceError
from satchel.devices.forecast import Request, constants, forecast, models, published, storage
from satchel.devices.forecast.constants import read_constants
from satchel.devices.forecast.models import known_model, read_models
from satchel.devices.forecast.published import read_published
from satchel.devices.forecast.storage import load_limits, read_limits
from satchel.devices.profile import load_device
from satchel.devices.strict_toml import LARGEST_FILE

READERS = {
    constants.FILE: read_constants, models.FILE: read_models, published.FILE: read_published, storage.FILE: read_limits,
}  # fmt: skip
SOURCES = Path(constants.__file__).parent
PHI = known_model("Phi-3-mini").shape


@pytest.mark.parametrize("file", READERS, ids=lambda f: f.stem)
def test_files_read_and_every_entry_has_a_source(file):
    assert READERS[file](file)
    text = file.read_text("utf-8")
    if file != models.FILE:
        assert text.count("\nsource = ") == text.count("[[")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: re.sub(r"\n\w+ = ", "\nsauce = ", t, count=1), lambda t: t + '\n[extra]\na = 1\n', lambda t: "",
        lambda t: t + t, lambda t: t.replace("= ", "= -", 1), lambda t: t.replace('= "', "= 1 #", 1),
        lambda t: "[" * 5000, lambda t: t.replace("[[", "[", 1).replace("]]", "]", 1), lambda t: "a = 1",
        lambda t: re.sub(r"= \d+", "= nan", t, count=1), lambda t: re.sub(r"= \d+", "= " + "9" * 5000, t, count=1),
        lambda t: re.sub(r"= \d[\d.e-]*\n", "= true\n", t, count=1), lambda t: t + "#" * LARGEST_FILE,
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", READERS, ids=lambda f: f.stem)
def test_hostile_files_are_refused(tmp_path, file, change):
    text = file.read_text("utf-8")
    changed = change(text)
    assert changed != text
    (tmp_path / "bad.toml").write_text(changed)
    with pytest.raises(DeviceError, match=r"bad\.toml|unknown"):
        READERS[file](tmp_path / "bad.toml")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.data())
def test_any_damage_gives_no_other_error(tmp_path_factory, file, data):
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("damage") / "bad.toml"
    path.write_bytes(
        content[:start] + data.draw(st.binary(max_size=8)) + content[start + data.draw(st.integers(0, 8)) :]
    )
    with contextlib.suppress(DeviceError):
        assert READERS[file](path)


def test_missing_files_and_folders(tmp_path):
    for reader in READERS.values():
        for path in (tmp_path, tmp_path / "none.toml"):
            with pytest.raises(DeviceError):
                reader(path)


def test_every_constant_is_used_and_every_used_one_is_there():
    code = "".join(p.read_text("utf-8") for p in SOURCES.glob("*.py"))
    used = set(re.findall(r'constant\(f?"([^"]+)"\)', code))
    patterns = [re.sub(r"\{[^}]*\}", ".+", re.escape(name).replace(r"\{", "{").replace(r"\}", "}")) for name in used]
    patterns += [rf"{kind}\.(compute_)?efficiency|{kind}\.overhead_s" for kind in ("cpu", "neural-engine", "gpu")]
    names = list(read_constants(constants.FILE))
    assert [n for n in names if not any(re.fullmatch(p, n) for p in patterns)] == []
    assert [n for n in used if "{" not in n and n not in names] == []


@pytest.mark.parametrize(
    ("device", "weights", "way"),
    [
        ("iphone-15-pro", "palette", "in the app"),
        ("iphone-15-pro", "int8", "in the app"),
        ("iphone-15-pro", "fp16", "server of one's own"),
        ("iphone-17", "fp16", "hosted by Apple"),
        ("galaxy-s24", "fp16", "server of one's own"),
        ("galaxy-s24", "int4", "several packs"),
        ("raspberry-pi-5", "fp16", "file"),
    ],
)
def test_how_a_model_of_3_8_billion_parameters_is_delivered(device, weights, way):
    profile = load_device(device)
    profile = profile.changed(os_version=26) if device == "iphone-17" else profile
    assert way in forecast(profile, PHI, Request(weights=weights)).storage.best


def test_small_models_go_into_the_base_module():
    found = forecast(load_device("pixel-9"), known_model("SmolLM2-135M").shape)
    assert found.storage.best == "in the base module"
    assert {limit.os for limit in load_limits()} == {"ios", "macos", "android", "linux"}
