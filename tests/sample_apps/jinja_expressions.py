"""Small templates with what Jinja makes of them, for the interpreter of Jinja in sample_apps/android.

    python tests/sample_apps/jinja_expressions.py     writes them again

jinja_expressions.json has the templates and their variables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from satchel.runtime.chat import _environment

FILE = Path(__file__).parents[2] / "sample_apps/android/core/src/test/resources/jinja.json"


def rendered(source: str, variables: dict[str, Any]) -> str | None:
    """What Jinja makes of a template; None where it refuses."""
    try:
        return _environment().from_string(source).render(**variables)
    except Exception:  # whatever a template's code may throw
        return None


def cases() -> dict[str, Any]:
    """Everything, as the file holds it."""
    given = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    sources = [*("{{ " + expression + " }}" for expression in given["expressions"]), *given["templates"]]
    variables = given["variables"]
    return {"variables": variables, "cases": [{"template": s, "rendered": rendered(s, variables)} for s in sources]}


def text() -> str:
    """The file's content, a case a line."""
    return json.dumps(cases(), ensure_ascii=True).replace('}, {"template"', '},\n{"template"') + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
