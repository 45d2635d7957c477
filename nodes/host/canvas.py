"""Muted and bypassed nodes, which the canvas shows but the executed prompt does not contain."""

from collections.abc import Mapping
from typing import Any

SWITCHED_OFF = {2: ("muted", "Ctrl+M"), 4: ("bypassed", "Ctrl+B")}
"""Modes in which ComfyUI does not run a node, and the keys that end them."""


def why_disconnected(extra_pnginfo: Mapping[str, Any] | None, node_id: str) -> str | None:
    """Return a sentence on a muted or bypassed node with a wire to `node_id`, if there is one."""
    workflow = (extra_pnginfo or {}).get("workflow") or {}
    nodes = {str(node["id"]): node for node in workflow.get("nodes", ())}
    sources = {link[0]: str(link[1]) for link in workflow.get("links", ()) if isinstance(link, list)}
    for slot in nodes.get(node_id, {}).get("inputs", ()):
        source = nodes.get(sources.get(slot.get("link"), ""), {})
        if source.get("mode") in SWITCHED_OFF:
            return _sentence(slot["name"], source)
    return None


def _sentence(name: str, source: Mapping[str, Any]) -> str:
    how, keys = SWITCHED_OFF[source["mode"]]
    title = source.get("title") or source.get("properties", {}).get("Node name for S&R") or source["type"]
    return f"{name} gets no input, since the node {title!r} is {how}. Select that node and press {keys}."
