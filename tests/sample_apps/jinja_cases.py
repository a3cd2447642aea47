"""Writes what Jinja itself makes of many small templates, for SatchelKit's own interpreter of them.

    python tests/sample_apps/jinja_cases.py FILE

jinja_templates.json has the constructs of real models' templates one by one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from satchel.runtime.chat import ChatTemplate
from satchel.runtime.errors import BundleError, UsageError

MESSAGES = [
    {"role": "system", "content": "  Be brief.\n"},
    {"role": "user", "content": "Hello, wörld! 'quoted' \"twice\""},
    {"role": "assistant", "content": "Yes<think>hm</think> no"},
    {"role": "user", "content": "日本語 😀"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def rendered(source: str) -> str | None:
    """What Jinja makes of it; None where it is refused, as no template or when it runs."""
    try:
        return ChatTemplate(source, SPECIAL).render(MESSAGES)
    except (BundleError, UsageError):
        return None


def text() -> str:
    """The file: JSON, a case a line."""
    sources = json.loads(Path(__file__).with_name("jinja_templates.json").read_text(encoding="utf-8"))
    lines = (json.dumps({"source": source, "rendered": rendered(source)}) for source in sources)
    head = json.dumps({"messages": MESSAGES, "special": SPECIAL})
    return head[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
