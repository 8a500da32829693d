"""The clock of chat templates. Invariant: no prompt depends on the day on which it is rendered.

Transformers gives templates a function `strftime_now`; Llama 3.2 and gpt-oss write today's date with it. Here it is hidden by a
macro of the same name, which knows one day.
"""

from __future__ import annotations

from datetime import datetime

TEMPLATE_DATE = datetime(2026, 1, 1)
"""What templates take for now."""

_CLOCK = "strftime_now"
_DIRECTIVES = "aAbBcdfGHIjmMpSuUVwWxXyYzZ"
"""Letters of strftime's directives."""


def reads_clock(template: str | None) -> bool:
    """Return whether a chat template writes a date or time of now."""
    return template is not None and _CLOCK in template


def pin_clock(template: str) -> str:
    """Return a template that takes `TEMPLATE_DATE` for now, where it asks the clock at all."""
    if not reads_clock(template):
        return template
    values = {f"%{letter}": TEMPLATE_DATE.strftime(f"%{letter}") for letter in _DIRECTIVES}
    # Without padding, as the C library of Linux and macOS knows it.
    values |= {f"%-{name[1]}": value.lstrip("0") or "0" for name, value in values.items() if value.isdigit()}
    filters = "".join(f"|replace({name!r}, {value!r})" for name, value in (*values.items(), ("%%", "%")))
    # The line break behind a block is left out when a template is rendered: the template itself begins a line, as before.
    return f"{{% macro {_CLOCK}(form) %}}{{{{ form{filters} }}}}{{% endmacro %}}\n{template}"
