"""Plans of traced modules: each choice with its rule, what is impossible refused, and all that can be asked for."""

import pytest

from satchel.devices.errors import PlanError
from satchel.devices.module_plan import MODULE_WEIGHTS, ModuleShape, make_module_plan
from satchel.devices.plan import Rejection
from satchel.devices.profile import device_names, load_device
from satchel.devices.rulebook import all_rules

ENCODER = ModuleShape(22_000_000, frozenset({"linear", "embedding"}), 2, True)
VISION = ModuleShape(5_000_000, frozenset({"convolution", "linear"}), 1, False)
CONVOLUTIONS = ModuleShape(1_000_000, frozenset({"convolution"}), 1, False)


def plan(device, shape=ENCODER, **options):
    return make_module_plan(load_device(device), shape, **options)


def choice(found, role):
    return next(c for c in found.choices if c.role == role)


@pytest.mark.parametrize("device", device_names())
def test_every_choice_of_every_device_names_rules_and_every_alternative_is_possible_or_refused(device):
    profile = load_device(device)
    for format in profile.formats:
        for weights in (None, *MODULE_WEIGHTS):
            found = make_module_plan(profile, ENCODER, format=format, weights=weights)
            for made in found.choices:
                told = [made.source, *(r.source for r in made.rejected if isinstance(r, Rejection))]
                assert all(i in all_rules() for source in told for i in source.split(", "))
                assert made.reason and made.value
            assert make_module_plan(profile, ENCODER, format=format, weights=weights) == found


def test_engine_gets_fp16_fixed_shapes_and_palettes():
    found = plan("iphone-15-pro")
    values = {c.role: c.value for c in found.choices}
    assert values | {
        "format": "coreml", "target": "iOS18", "weights": "palette", "activation_dtype": "float16",
        "shapes": "examples", "compute": "cpuAndNeuralEngine", "linear": "linear", "layout": "as_traced",
    } == values  # fmt: skip
    assert "NE05a" in choice(found, "activation_dtype").source and "CH41" in choice(found, "shapes").source
    assert plan("iphone-15-pro", VISION)["shapes"] == "fixed"
    turned = plan("iphone-15-pro", overrides={"linear": "conv1x1"})
    assert turned["layout"] == "channels_first" and "NE01" in choice(turned, "layout").source
    assert choice(turned, "linear").rejected[0].value == "linear"
    assert plan("iphone-15-pro", weights="fp32")["compute"] == "cpuAndGPU"
    assert plan("iphone-15-pro", weights="fp32")["activation_dtype"] == "float32"


def test_before_ios18_and_behind_the_delegate_there_is_one_function():
    assert plan("iphone-15-pro", overrides={"target": "iOS16"})["shapes"] == "largest_example"
    found = plan("iphone-15-pro", format="executorch")
    assert (found["target"], found["shapes"], found["weights"]) == ("coreml", "largest_example", "palette")
    assert found["activation_dtype"] == "float16" and "CH12" in choice(found, "target").source
    cpu = plan("iphone-15-pro", format="executorch", overrides={"target": "xnnpack"})
    assert (cpu["shapes"], cpu["linear"], cpu["compute"]) == ("any", "qd8_qc8w", "cpu")
    assert plan("iphone-15-pro", format="executorch", weights="fp16")["target"] == "xnnpack"
    assert plan("raspberry-pi-5", format="executorch")["target"] == "xnnpack"


def test_arm_gets_int8_kernels_and_any_size():
    onnx, executorch = plan("pixel-9"), plan("pixel-9", format="executorch")
    assert (onnx["linear"], onnx["activation_dtype"], onnx["shapes"]) == ("matmul_nbits", "int8", "any")
    assert (executorch["linear"], executorch["activation_dtype"]) == ("qd8_qc8w", "int8")
    assert plan("pixel-9", weights="fp16")["linear"] == "matmul"


@pytest.mark.parametrize(
    ("device", "shape", "overrides", "rule"),
    [
        ("iphone-15-pro", ENCODER, {"shapes": "any"}, "CH41"),
        ("iphone-15-pro", ENCODER, {"target": "iOS16", "shapes": "examples"}, "CT18"),
        ("iphone-15-pro", ENCODER, {"layout": "channels_first"}, "CH40"),
        ("iphone-15-pro", CONVOLUTIONS, {"linear": "conv1x1"}, "CH40"),
        ("iphone-15-pro", ENCODER, {"weights": "fp32", "compute": "cpuAndNeuralEngine"}, "NE05a"),
        ("iphone-15-pro", ENCODER, {"format": "executorch", "shapes": "examples"}, "CH12"),
        ("pixel-9", ENCODER, {"format": "executorch", "target": "coreml"}, "CH12"),
        ("pixel-9", ENCODER, {"target": "opset17"}, "CH26"),
        ("pixel-9", ENCODER, {"layout": "channels_first"}, "CH40"),
    ],
)
def test_what_a_rule_forbids_is_refused_with_the_rule(device, shape, overrides, rule):
    with pytest.raises(PlanError) as told:
        plan(device, shape, overrides=overrides)
    assert rule in str(told.value)
    assert all_rules()[rule].statement in str(told.value)
