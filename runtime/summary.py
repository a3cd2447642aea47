"""What a bundle says of itself, in short."""

from __future__ import annotations

from typing import Any

from satchel.runtime.bundle import Bundle


def summary(bundle: Bundle) -> dict[str, Any]:
    """The essentials of a bundle's manifest, as a JSON object."""
    m = bundle.manifest
    return {
        "model": m.model.model_id, "family": m.model.family, "license": m.model.license,
        "parameters": m.model.parameters, "device": m.plan.device, "format": m.entry.format,
        "weights": m.weights.scheme, "context_length": m.entry.context_length,
        "prefill_length": m.entry.prefill_length, "vocab_size": m.tokens.vocab_size,
        "bos_id": m.tokens.bos_id, "stop_ids": list(m.tokens.stop_ids), "bytes": bundle.bytes,
        "tokenizer": bundle.has("tokenizer.json"), "chat_template": bundle.has("chat_template.jinja"),
        "schema_version": m.schema_version, "tools": dict(m.tools), **({"sees": True} if m.entry.vision else {}),
    }  # fmt: skip
