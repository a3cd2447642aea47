"""What a model would need and do on a device, before it is exported: memory, sizes, speed, first load, and a verdict.

From a profile, a plan and a shape; nothing is measured on the device. docs/forecast.md has the formulas, where their
constants come from, and how far they are from published figures.
"""

from __future__ import annotations

from satchel.devices.forecast.suggestions import Suggestion, largest, suggest
from satchel.devices.forecast.verdict import ENTITLED, FITS, NO, Forecast, Request, forecast, forecast_plan

__all__ = [
    "ENTITLED",
    "FITS",
    "NO",
    "Forecast",
    "Request",
    "Suggestion",
    "forecast",
    "forecast_plan",
    "largest",
    "suggest",
]
