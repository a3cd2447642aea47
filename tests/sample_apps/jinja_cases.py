"""Small templates with what Jinja makes of them, for the interpreter of Jinja in sample_apps/android.

    python tests/sample_apps/jinja_cases.py     writes them again
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from satchel.runtime.chat import _environment

FILE = Path(__file__).parents[2] / "sample_apps/android/core/src/test/resources/jinja.json"

VARIABLES: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": " Héllo 😀 "},
        {"role": "assistant", "content": "Hi", "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": [1.5, None, True]}}]},
        {"role": "user", "content": "Ünd?"},
    ],
    "numbers": [3, 1, 2, 3],
    "table": {"b": 2, "a": 1, "items": "hidden"},
    "text": "a,b,,c", "spaced": "  one  two\tthree\n", "empty": "", "nothing": None, "yes": True, "half": 0.5,
    "tools": [{"type": "function", "function": {"name": "get", "description": "Gets \"it\" & more <b>", "parameters": {}}}],
    "bos_token": "<s>", "add_generation_prompt": True,
}  # fmt: skip

EXPRESSIONS = (
    # values and how they print
    "1", "1.0", "1e20", "1e-7", "1_000", "'a' 'b'", "none", "true", "False", "[1, 'a', none, true, 1.5]", "(1, 2)", "(1,)", "()",
    "{'a': 1, 'b': [2]}", r"'\n\t\\\'x\x41\u00e9'", "\"it's\"", "[\"it's\"]", "['\\n\\\\']", "nothing", "unknown", "0x1f + 0b11",
    # arithmetic
    "1 + 2 * 3", "7 // 2", "-7 // 2", "-7 % 3", "7 % -3", "7 / 2", "2 ** 3", "2 ** -1", "-2 ** 2", "1 - 2 - 3", "1.5 + 1", "0.1 + 0.2",
    "'a' + 'b'", "'ab' * 3", "[1] + [2]", "1 ~ 'a' ~ none ~ 1.0", "'%s and %d' % ('x', 3)", "'%.2f' % half", "1 + true", "7.5 // 2",
    # comparison and logic
    "1 == 1.0", "1 == true", "'a' < 'b'", "1 < 2 < 3", "1 < 3 < 2", "[1, 2] == [1, 2]", "[1, 2] < [1, 3]", "'a' != 'b'", "not 1",
    "not false and true", "0 or 'x'", "'' and 'x'", "1 if yes else 2", "1 if not yes", "'x' if false", "1 if false else 2 if false else 3",
    "'b' in text", "'z' not in text", "2 in numbers", "'a' in table", "none == nothing", "unknown == nothing", "not unknown",
    "{'a': 1} == {'a': 1.0}", "(1, 2) == [1, 2]", "yes and not empty or nothing",
    # reaching into values
    "table.a", "table['b']", "table.items is callable", "table['items']", "table.items() | list", "messages[0].role", "messages[-1]['content']",
    "messages[9]", "messages[0].missing", "text[0]", "text[-1]", "messages[1].content[7]", "numbers[1:3]", "numbers[::-1]", "text[2:]",
    "text[:-1]", "text[::2]", "numbers[-2:]", "numbers[5:]", "text[4:1:-1]", "messages[1:] | length", "numbers.0", "table.get('a')",
    "table.get('z')", "table.get('z', 7)", "table.keys() | list", "table.values() | list | last", "messages[2].tool_calls[0].arguments.y[0]",
    # methods
    "text.split(',')", "text.split(',', 1)", "text.rsplit(',', 1)", "spaced.split()", "spaced.split(none, 1)", "spaced.strip()",
    "spaced.lstrip()", "'xxaxx'.strip('x')", "'xxaxx'.rstrip('x')", "'a\\nb\\r\\nc'.splitlines()", "'abc'.startswith('ab')",
    "'abc'.startswith(('x', 'a'))", "'abc'.endswith('bc')", "'a-b'.replace('-', '+')", "'aaa'.replace('a', 'b', 2)", "'héLLO'.upper()",
    "'HÉ'.lower()", "'hELLO wORLD'.title()", "'hELLO'.capitalize()", "'abcabc'.find('c')", "'abcabc'.rfind('c')", "'😀a'.find('a')",
    "'abc'.find('z')", "'abcabc'.count('b')", "'-'.join(['a', 'b'])", "'{} {x} {{}}'.format(1, x=2)", "'12'.isdigit()", "'1a'.isdigit()",
    "'ab'.isalpha()", "' '.isspace()", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'abc'.removeprefix('a')",
    "'abc'.removesuffix('c')", "numbers.index(2)", "numbers.count(3)", "'7'.zfill(3)", "'AB'.isupper()",
    # filters
    "messages[1].content | trim", "text | upper | lower", "text | length", "messages[1].content | length", "numbers | first", "numbers | last",
    "numbers | join('-')", "numbers | join", "messages | map(attribute='role') | join(', ')", "['a', 'B'] | map('upper') | list",
    "messages | selectattr('role', 'equalto', 'user') | list | length", "messages | selectattr('tool_calls', 'defined') | list | length",
    "messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | list", "numbers | select('odd') | list",
    "numbers | reject('greaterthan', 2) | list", "[0, 1, '', 'a'] | select | list", "numbers | sort", "numbers | sort(reverse=true)",
    "['b', 'A'] | sort", "numbers | unique | list", "numbers | reverse | list", "'abc' | reverse", "numbers | sum", "numbers | max",
    "numbers | min", "unknown | default('d')", "empty | default('d')", "empty | default('d', true)", "nothing | default('d')",
    "unknown | d('x') | upper", "table | tojson", "messages[2] | tojson", "messages[2] | tojson(indent=2)", "tools | tojson",
    "'é\\n\"<' | tojson", "'é' | tojson(ensure_ascii=true)", "table | tojson(sort_keys=true, separators=(',', ':'))", "table | dictsort",
    "table | items | list", "'3' | int + 1", "'x' | int", "'x' | int(7)", "'2.5' | float", "3.7 | int", "2.5 | round", "3.14159 | round(2)",
    "-3 | abs", "numbers | string", "'a\\nb\\n\\nc' | indent(2)", "'a\\nb' | indent(2, true)", "'<a & \"b\">' | e", "'aXbX' | replace('X', '-')",
    "'hello world' | capitalize", "'hello world-wide' | title", "'%s=%s' | format('a', 1)", "'one two' | wordcount", "numbers | list | length",
    "[1, 2, 3] | batch(2) | list", "5 | string ~ 'x'", "table | length", "(1, 2) | list", "numbers | sort | first | string | length",
    # tests
    "unknown is defined", "text is defined", "unknown is not defined", "nothing is none", "nothing is not none", "text is string",
    "table is mapping", "numbers is iterable", "numbers is sequence", "1 is number", "true is boolean", "1 is integer", "1.0 is float",
    "3 is odd", "4 is even", "9 is divisibleby 3", "9 is divisibleby(2)", "'a' is in text", "1 is eq 1", "1 is not eq(2)", "yes is true",
    "text is string and text | length > 3", "numbers[0] is gt 2", "'ABC' is upper", "none is sameas none", "messages is not string",
    # functions
    "range(3) | list", "range(1, 10, 3) | list", "range(5, 0, -2) | list", "dict(a=1)", "namespace(a=1).a", "range(0) | list",
    # errors
    "unknown.x", "1 + 'a'", "none + 1", "1 / 0", "nothing.x.y", "'a' < 1", "raise_exception('no')", "numbers.append(1)", "unknown()",
    "1 in 1", "numbers | nosuch", "1 is nosuch", "'a' * 9999999", "9 ** 999", "range(999999)", "text.nosuch()", "[1, 2", "1 +", "nothing | length",
    "'a' % 'b'", "table.update({})",
)  # fmt: skip

TEMPLATES = (
    # white space
    "a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}  \n b\n  {% endif %}\nc\n\n", "a {%- if true -%} b {%- endif -%} c",
    "a  {{- 1 -}}  b", "  {{ 1 }}\n  {{ 2 }}\n", "a\n  {%+ if true +%}\nb{% endif %}", "{# note #}\nx{# y #} z\n  {# w #}\nend",
    "a\n    {#- note -#}\n  b", "{% raw %}{{ x }}{% endraw %}!", "a {%- raw -%}  {% x %} {%- endraw -%} b", "x{{ '}}' }}y{{ {'a': {'b': 1}} }}",
    "\r\nA\r\n{{ 1 }}\r\n", "{{ 1 }}\n\n\n", "{%- set a = 1 %}\n{{ a }}", "a\n \t{% set x = 1 %}\nb{{ x }}",
    # loops
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ m.role[0] }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for a in [] %}x{% else %}none{% endfor %}", "{% for k, v in table.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for a in numbers if a > 1 %}{{ a }}{{ loop.first }}{% endfor %}", "{% for c in 'aé😀' %}{{ c }}.{% endfor %}",
    "{% for k in table %}{{ k }}{% endfor %}", "{% for a in numbers %}{{ loop.previtem }}<{{ a }}<{{ loop.nextitem }};{% endfor %}",
    "{% for a in numbers %}{{ loop.cycle('x', 'y') }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.index0 }}{% endfor %}",
    "{% for a in [1, 2, 3, 4] %}{% if a == 2 %}{% continue %}{% endif %}{% if a == 4 %}{% break %}{% endif %}{{ a }}{% endfor %}",
    "{% for a in unknown %}x{% endfor %}.", "{% for a in none %}x{% endfor %}", "{% for (a, b) in [(1, 2)] %}{{ a + b }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{{ a }}{{ b }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% for a in 1, 2 %}{{ a }}{% endfor %}", "{% for a in numbers | sort if a != 2 %}{{ a }}{% endfor %}",
    # variables
    "{% set x = 1 %}{% for a in [1, 2] %}{% set x = x + a %}{{ x }}{% endfor %}{{ x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set ns = namespace(n=0, s='') %}{% for a in numbers %}{% set ns.n = ns.n + a %}{% set ns.s = ns.s ~ a %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x | upper }}", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x = (1, 2) %}{{ x }}",
    "{% if true %}{% set y = 5 %}{% endif %}{{ y }}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "{% set table.a = 1 %}",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}", "{% set x = 1, %}{{ x }}",
    # conditions
    "{% if unknown %}a{% elif messages | length > 3 %}b{% else %}c{% endif %}", "{% if messages[0].role == 'system' and yes %}s{% endif %}",
    "{% if unknown is defined and unknown.x %}a{% else %}b{% endif %}", "{% if not (nothing is not none) %}ok{% endif %}",
    # macros
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='y') }}{{ m() }}",
    "{% macro outer(x) %}[{{ inner(x) }}]{% endmacro %}{% macro inner(x) %}({{ x }}){% endmacro %}{{ outer(1) }}",
    "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in{% endcall %}", "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro m(a=none) %}{{ a is none }}{% endmacro %}{{ m() }}",
    # as chat templates are
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set system = messages[0]['content'] | trim %}\n    {%- set rest = messages[1:] %}\n{%- else %}\n"
    "    {%- set system = '' %}\n{%- endif %}\n{{- '[SYS]' + system + '\\n' }}\n{%- for m in rest %}\n    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}\n"
    "        {{- raise_exception('take turns') }}\n    {%- endif %}\n    {{- '[' ~ m.role | upper ~ ']' ~ m.content }}\n{%- endfor %}",
    "{%- if tools %}\n{{- 'Tools:\\n' }}\n{%- for tool in tools %}\n{{- tool | tojson }}\n{{- '\\n' }}\n{%- endfor %}\n{%- endif %}\n"
    "{%- for m in messages %}{%- if m.tool_calls is defined and m.tool_calls %}\n{%- for call in m.tool_calls %}\n"
    "{{- '{\"name\": \"' ~ call.name ~ '\", \"arguments\": ' ~ (call.arguments | tojson) ~ '}' }}\n{%- endfor %}\n{%- endif %}\n{%- endfor %}",
    "{%- set ns = namespace(last=-1) %}{%- for m in messages[::-1] %}{%- set i = (messages | length - 1) - loop.index0 %}"
    "{%- if ns.last < 0 and m.role == 'user' %}{%- set ns.last = i %}{%- endif %}{%- endfor %}{{ ns.last }}",
    "{%- for m in messages %}{%- set content = m.content.split('</think>')[-1].lstrip('\\n') if '</think>' in m.content else m.content %}{{ content }}|{% endfor %}",
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}",
    "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}",
    # no templates
    "{% for %}", "{% if true %}", "{{ 1", "{% endif %}", "{% nosuch %}", "{{ }}", "{# x", "{% break %}", "{{ 'a }}", "{{ a b }}", "{% set 1 = 2 %}",
    "{% for a in b %}{% endif %}", "{{ (1 }}", "{% raw %}x",
)  # fmt: skip


def rendered(source: str) -> str | None:
    """What Jinja makes of a template; None where it refuses."""
    try:
        return _environment().from_string(source).render(**VARIABLES)
    except Exception:  # whatever a template's code may throw
        return None


def cases() -> dict[str, Any]:
    """Everything, as the file holds it."""
    sources = [*("{{ " + expression + " }}" for expression in EXPRESSIONS), *TEMPLATES]
    return {"variables": VARIABLES, "cases": [{"template": source, "rendered": rendered(source)} for source in sources]}


def text() -> str:
    """The file's content, a case a line."""
    return json.dumps(cases(), ensure_ascii=True).replace('}, {"template"', '},\n{"template"') + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
