"""File names with dates and other nodes' values, filled in as ComfyUI's frontend does, valid on every system."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ...pipeline.errors import InvalidRequestError

DATE = re.compile(r"%date:([^%]+)%")
VALUE = re.compile(r"%([^%/\\]+)\.([^%./\\]+)%")
DATE_PARTS = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "hh": "%H", "mm": "%M", "ss": "%S"}
SINGLE_PARTS = {"M": "month", "d": "day", "h": "hour", "m": "minute", "s": "second"}
DATE_PART = re.compile("|".join([*DATE_PARTS, *SINGLE_PARTS]))
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
"""Characters that Windows forbids in a name, and path separators."""
LAST = re.compile(r"[. ]+$")
"""Characters that Windows drops at the end of a name."""
DEVICE = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|$)", re.IGNORECASE)
"""A name that Windows reserves for a device, with any extension."""


def fill_in(filename_prefix: str, prompt: dict[str, Any], extra_pnginfo: dict[str, Any] | None) -> str:
    """Fill in `%date:yyyy-MM-dd%` and `%Node name.widget%` in `filename_prefix`.

    A node's name is its title (with or without the part in brackets), its type, or its "Node name for S&R". Raises
    `InvalidRequestError` if no node has this name and value.
    """
    now = datetime.now().astimezone()
    filled = DATE.sub(lambda match: _safe(_date(match[1], now)), filename_prefix)
    return VALUE.sub(lambda match: _safe(_value(match[1], match[2], prompt, extra_pnginfo or {})), filled)


def as_portable(filename_prefix: str) -> str:
    """Replace everything that Windows forbids in a name by "_", so that the file can go to any system."""
    return "/".join(_as_portable_name(name) for name in re.split(r"[/\\]", filename_prefix))


def _as_portable_name(name: str) -> str:
    if name in ("", ".", ".."):
        return name
    kept = LAST.sub(lambda match: "_" * len(match[0]), FORBIDDEN.sub("_", name))
    return DEVICE.sub(r"\1_", kept)


def _date(format: str, now: datetime) -> str:
    def fill(match: re.Match[str]) -> str:
        part = match[0]
        return now.strftime(DATE_PARTS[part]) if part in DATE_PARTS else str(getattr(now, SINGLE_PARTS[part]))

    return DATE_PART.sub(fill, format)


def _value(name: str, widget: str, prompt: dict[str, Any], extra_pnginfo: dict[str, Any]) -> Any:
    for node in _nodes_called(name, prompt, extra_pnginfo):
        value = node["inputs"].get(widget)
        if value is not None and not isinstance(value, (list, dict)):
            return value
    raise InvalidRequestError(
        f"filename_prefix has %{name}.{widget}%, but no node called {name!r} has a widget {widget!r} with a value: "
        "write the node's title and the name of one of its widgets, as in %Sampler Settings.seed%."
    )


def _nodes_called(name: str, prompt: dict[str, Any], extra_pnginfo: dict[str, Any]) -> Iterator[dict[str, Any]]:
    drawn = {str(node.get("id")): node for node in (extra_pnginfo.get("workflow") or {}).get("nodes", [])}
    for node_id, node in prompt.items():
        on_canvas = drawn.get(node_id, {})
        names = (
            on_canvas.get("properties", {}).get("Node name for S&R"),
            node.get("_meta", {}).get("title", "").split(" (")[0],
            node.get("_meta", {}).get("title"),
            node["class_type"],
        )
        if name in names:
            yield node


def _safe(value: Any) -> str:
    return FORBIDDEN.sub("_", str(value))
