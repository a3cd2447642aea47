"""Two hundred texts that tokenizers stumble over: scripts, emoji, white space, digits, code, spellings of controls."""

from __future__ import annotations

import json
import random
from pathlib import Path

COUNT = 200


def hard_texts() -> list[str]:
    """Those of hard_texts.json, then mixtures of them, up to COUNT; the same at each call."""
    written = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    chance = random.Random(7)
    texts = list(dict.fromkeys(written))
    while len(texts) < COUNT:
        mixed = "".join(chance.choice(written)[:12] + chance.choice(("", " ", "\n", "  ")) for _ in range(5))
        if mixed not in texts:
            texts.append(mixed)
    return texts
