"""Torch networks of many kinds, and their conversion to Core ML by coremltools."""

from __future__ import annotations

from networks import compressed, control, sequences, vision
from networks.base import Network

NETWORKS: dict[str, Network] = {**vision.NETWORKS, **sequences.NETWORKS, **control.NETWORKS, **compressed.NETWORKS}
