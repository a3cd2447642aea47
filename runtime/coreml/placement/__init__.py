"""Where the ops of a built Core ML program run: a forecast op by op, by the rules in devices/rules."""

from __future__ import annotations

from satchel.runtime.coreml.placement.forecast import DEFAULT_SETTING, forecast, forecast_package
from satchel.runtime.coreml.placement.page import page
from satchel.runtime.coreml.placement.report import Forecast, FunctionForecast, OpFigures, Placement, summary
from satchel.runtime.coreml.placement.units import SETTINGS

__all__ = [
    "DEFAULT_SETTING", "SETTINGS", "Forecast", "FunctionForecast", "OpFigures", "Placement", "forecast",
    "forecast_package", "page", "summary",
]  # fmt: skip
