"""Post-processing of matplotlib's SVG for the page. Invariant: no style attribute (the page's content policy refuses them),
colours by the names of `colours`, so that they follow light and dark; ids that no other figure has; the numbers in words for
screen readers.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from cotbench.report.cells import estimate_text
from cotbench.report.colours import LIGHT
from cotbench.report.page import Panel
from cotbench.report.typography import typeset, typeset_name

_LINK = "{http://www.w3.org/1999/xlink}href"
_NAMES = {value: name for name, value in LIGHT.items()}
_FONT = re.compile(r"(?P<weight>bold|[1-9]00)?\s*(?P<size>[\d.]+px)")


def page_svg(drawn: str, name: str, panel: Panel) -> str:
    """Return an `<svg>` element to embed in the page.

    Args:
        drawn: SVG as matplotlib wrote it.
        name: unique among the SVGs of the page.
        panel: its data; the numbers become the description.
    """
    root = ElementTree.fromstring(drawn)  # noqa: S314  (matplotlib wrote it)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _clean(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-numbers")
    for place, (tag, text) in enumerate((("title", panel.title or "Figure"), ("desc", described(panel)))):
        element = ElementTree.Element(tag, {"id": f"{name}-{'numbers' if tag == 'desc' else tag}"})
        element.text = text
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")


def described(panel: Panel) -> str:
    """Return the numbers of a panel in words, a sentence a line."""
    sentences = []
    for line in panel.lines:
        numbers = "; ".join(
            f"{panel.labels[int(x)] if panel.labels else f'{x:g}'}: {typeset(estimate_text(y))}"
            for x, y in zip(line.x, line.y, strict=True)
        )
        sentences.append(f"{typeset_name(line.label)}: {numbers}.")
    return " ".join(sentences)


def _clean(element: ElementTree.Element, name: str) -> None:
    element.tag = _local(element.tag)
    element.text = element.text.strip() or None if element.text and element.tag != "text" else element.text
    element.tail = None
    for attribute, value in _properties(element.attrib.pop("style", "")):
        element.set(attribute, value)
    for attribute, value in list(element.attrib.items()):
        if attribute == "id":
            element.set("id", f"{name}-{value}")
        elif attribute == _LINK:
            del element.attrib[attribute]
            element.set("href", f"#{name}-{value.removeprefix('#')}")
        elif value.startswith("url(#"):
            element.set(attribute, f"url(#{name}-{value.removeprefix('url(#')}")
        elif attribute == "d":
            element.set("d", " ".join(value.split()))
        elif value in _NAMES:
            element.set(attribute, f"var(--{_NAMES[value]})")


def _properties(style: str) -> list[tuple[str, str]]:
    """Return the declarations of a style attribute as attributes, without the font family: text has the page's font."""
    found = []
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font" and (font := _FONT.match(value)):
            found.append(("font-size", font["size"]))
            found += [("font-weight", font["weight"])] if font["weight"] else []
        elif key != "font-family":
            found.append((key, value))
    return found


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
