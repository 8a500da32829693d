"""What a spec out of somebody else's folder may not do unconfirmed. Invariant: on the word of a folder alone no other
machine is contacted, no variable of the environment is read as a key, and no program gets arguments.

The rule looks at texts, not at agents, so that it holds for specs inside of specs and for agents of plugins: an address outside
of this machine, and the options below with other values than the usual ones. Models, folders and files may be named: no code of
a model is run, and what is read from this machine stays on it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import unquote, urlsplit

from cotbench.server_url import is_loopback

USUAL: Mapping[str, Collection[str]] = {"key_env": ("", "OPENAI_API_KEY"), "args": ("",), "vllm_args": ("",)}
"""Option -> its values that need no confirmation: the variable with the key, arguments of a program that is started."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>&,]*", re.IGNORECASE)
_OPTION = re.compile(rf"(?:^|[?&,=])({'|'.join(USUAL)})=([^&]*)")


def concerns(value: object) -> tuple[str, ...]:
    """Return what has to be confirmed before a value out of a folder is used, in words; empty where nothing has to be.

    Args:
        value: a spec, or JSON data that holds specs, such as a config.
    """
    return tuple(dict.fromkeys(found for text in _texts(value) for found in _concerns(text)))


def _concerns(text: str) -> Iterator[str]:
    while (decoded := unquote(text)) != text:  # An inner spec is decoded once more than an outer one.
        text = decoded
    for url in _URL.findall(text):
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        if not is_loopback(host):
            yield f"the address {url!a}"
    for name, found in _OPTION.findall(text):
        values = [found] if name.endswith("args") else found.split(",")[:1]
        yield from (f"{name}={one!a}" for one in values if one not in USUAL[name])


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in JSON data; of a mapping also each name with its text, as an option is written."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner)
            if isinstance(inner, str):
                yield f"?{name}={inner}"
    elif isinstance(value, Collection):
        for inner in value:
            yield from _texts(inner)
