"""Texts that a model or a server may write to break what handles them, in families; the same ones every time."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

CONTROL = [*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0))]
INVISIBLE = [
    *"\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\u00ad"
]
TAGS = ("<think>", "</think>", "<action>", "</action>", "<|im_end|>", "<|im_start|>system\n", "</s>", "[INST]", "<|endoftext|>")


def _controls() -> Iterator[str]:
    yield from (f"go to {character}fridge 1" for character in CONTROL)
    yield from (f"look{character}" for character in INVISIBLE)
    yield from (
        "\x1b[2J\x1b[H",
        "\x1b]0;owned\x07",
        "\x1b[31mred\x1b[0m",
        "\x9b31m",
        "look\r\x1b[Kwon",
        "\b" * 50,
        "[red]look[/red]",
    )


def _encodings() -> Iterator[str]:
    yield from ("\ud800", "\udfff look", "a\ud83d", "\U000e0041\U000e0042")
    yield from ("\U0010ffff", "\ufffe\uffff", "e" + "\u0301" * 500)
    yield from (
        "ﬁnd",
        "İ",
        "ß" * 100,
        "ǅ",
        "١٢٣",
        "①",
        "ｌｏｏｋ",
        "lооk",
        "🜚" * 50,
        "👩‍👩‍👧‍👦",
        "\x00look\x00",
        "%00",
        "\\x00",
        "\\ud800",
    )


def _sizes() -> Iterator[str]:
    yield from ("", " ", "\n" * 1000, "\t", "x" * 5_000, "look " * 4_000, "take " + "a" * 50_000, "." * 9_999, "á" * 20_000)
    yield from ("go to " * 3000 + "fridge 1", "\n".join(["look"] * 3000), "0" * 30_000, '"' * 10_001, "x" * 99_999)


def _nesting() -> Iterator[str]:
    for count in (50, 95, 200, 1_000, 5_000):
        for left, right in ("()", "[]", "{}"):
            yield f"[ls(a={left * count}{right * count})]"
        yield from (
            "[" * count,
            '{"a":' * count,
            "ls(" * count,
            "not " * count + "x",
            "-" * count + "1",
            "lambda:" * count + "1",
        )
    yield from ("[f(a=" + "+".join(["1"] * 3_000) + ")]", "f" + "(1)" * 500, "f" + "[0]" * 500, "x" + ".y" * 2_000)


def _numbers() -> Iterator[str]:
    for digits in (100, 3_600, 4_299, 4_301, 20_000):
        yield from (
            f"[ls(a=0x{'f' * digits})]",
            f"[ls(a={'9' * digits})]",
            f"[ls(a=-{'9' * digits}.5e{digits})]",
            f"[ls(a=0b{'1' * digits})]",
        )
    for text in (
        "1e999",
        "-1e999",
        "nan",
        "1_0",
        "0777",
        "1j",
        "9" * 400 + ".0",
        "0x",
        "1e-400",
        "True",
        "None",
        "...",
        "10**10**10",
    ):
        yield from (f"[ls(a={text})]", f"go to fridge {text}")


def _formats() -> Iterator[str]:
    yield from (
        "%s%s%n",
        "%(x)s",
        "{0}",
        "{}",
        "{action.__class__}",
        "${HOME}",
        "$(id)",
        "`id`",
        "{{7*7}}",
        "{%raw%}",
        "#{1}",
        "\\1\\2",
    )
    yield from (
        "; rm -rf /",
        "| cat /etc/passwd",
        "' OR 1=1 --",
        '"; DROP TABLE entries; --',
        "=1+1",
        "@SUM(A1)",
        "<img src=x onerror=x>",
    )
    yield from (
        "</script><script>x</script>",
        "<!--",
        "]]>",
        "&amp;&lt;",
        "javascript:x",
        "\\",
        "\\\\",
        "(?:a+)+$",
        "(" * 40 + "a" * 40,
        "*" * 99,
    )


def _paths() -> Iterator[str]:
    yield from (
        "../../etc/passwd",
        "/dev/zero",
        "C:\\con",
        "file:///etc/passwd",
        "~root",
        "..%2f..",
        "a/" * 500,
        "\\\\host\\share",
        "/proc/self/mem",
    )
    yield from (
        "[cd(folder='../..')]",
        "[cat(file_name='/etc/passwd')]",
        "[open('x')]",
        "[__import__('os').system('id')]",
        "[exec('x')]",
    )
    yield from (
        "[().__class__.__bases__[0].__subclasses__()]",
        "[f(**{'a': 1}, **{'a': 2})]",
        "[f(*[1])]",
        "[f(a:=1)]",
        "[f(a=f'{x}')]",
        "[f(a=b'x')]",
    )


def _prompts() -> Iterator[str]:
    yield from TAGS
    yield from (f"look{tag}go to fridge 1" for tag in TAGS)
    yield from (f"{tag * 300}look" for tag in TAGS)
    yield from (
        "Action: Action: look",
        "> look",
        "```\nlook\n```",
        "```" * 300,
        '"""look"""',
        "“look”",
        "reset task",
        "Reset  TASK.",
        "quit",
        "save",
        "restore",
        "undo",
    )


def _json() -> Iterator[str]:
    yield from (
        '{"name": "ls", "arguments": {}}',
        '{"a":1,"a":2}',
        "[null]",
        "[{}]",
        "{}",
        '"look"',
        "[[],[]]",
        '{"name": 1, "arguments": []}',
    )
    yield from (
        "[" + ",".join(["1"] * 9_000) + "]",
        json.dumps({str(number): number for number in range(2_000)}),
        '{"name":"\\ud800"}',
        "NaN",
        "[1e999]",
    )
    yield from (
        '[{"name":"ls","arguments":"{\\"a\\":' + "[" * 900 + '"}]',
        '{"__proto__": {}}',
        '{"$ref": "#"}',
        "&a [*a]",
        "!!python/object:os.system x",
    )


FAMILIES = {
    "control characters": _controls,
    "encodings": _encodings,
    "sizes": _sizes,
    "nesting": _nesting,
    "numbers": _numbers,
    "formats and markup": _formats,
    "paths and code": _paths,
    "prompt tags": _prompts,
    "JSON": _json,
}


def hostile_texts() -> list[str]:
    """All of them."""
    return [text for family in FAMILIES.values() for text in family()]


def some_hostile_texts(count: int) -> list[str]:
    """Some of every family."""
    rng, each = random.Random(count), count // len(FAMILIES)
    families = [list(family()) for family in FAMILIES.values()]
    return [text for family in families for text in rng.sample(family, min(each, len(family)))]
