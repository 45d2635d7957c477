"""Texts that go to a screen, a log or a file, without what must not be there."""

import re
from collections.abc import Mapping
from typing import Any

from .key import FalKey

REDACTED = "[redacted]"
MAX_REDACTED = 4000
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
LINE_LENGTH = 200
ECHO_LENGTH = 12
"""Characters in a row that tell an echo of the input from words that any text has."""


def printable_line(text: str, length: int = LINE_LENGTH) -> str:
    """Return one line of at most `length` printable characters."""
    line = ESCAPES.sub("", text[: 4 * length])
    line = "".join(character if character.isprintable() else " " for character in line)
    return " ".join(line.split())[:length]


def without_key(value: Any, key: FalKey | None) -> Any:
    """Return a value of JSON with nothing of the key in its texts. All that a server says goes through here."""
    if not key:
        return value
    if isinstance(value, str):
        for part in (key.secret, key.key_id):
            value = value.replace(part, REDACTED)
    elif isinstance(value, list):
        return [without_key(item, key) for item in value]
    elif isinstance(value, dict):
        return {without_key(name, key): without_key(item, key) for name, item in value.items()}
    return value


def redact(text: str) -> str:
    """Return `text` without credentials, content of data URIs, query strings of URLs, and addresses of fal's files.

    No more than the first 4000 characters, so that no text of a server's can make this slow.
    """
    text = text[:MAX_REDACTED]
    text = re.sub(r"(?i)\bkey\s{1,4}[\w.+/=\[\]-]{1,200}:[\w.+/=\[\]-]+", f"Key {REDACTED}", text)
    text = re.sub(r"(?i)\b(bearer|basic)\s{1,4}[\w.+/=-]{12,}", rf"\1 {REDACTED}", text)
    text = re.sub(r"data:([\w.+/-]{0,60})[\w;=.+-]{0,60},[A-Za-z0-9+/=_%-]*", rf"data:\1,{REDACTED}", text)
    text = re.sub(r"(https://[\w.-]{0,60}fal\.media)/[^\s\"'<>]*", rf"\1/{REDACTED}", text)
    return re.sub(r"(https?://[^\s?\"'<>]{1,500})\?[^\s\"'<>]*", rf"\1?{REDACTED}", text)


def private_texts(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of an input that are the user's own, by name, each as one line.

    `redact` takes care of data URIs.
    """
    texts = {name: arguments.get(name, "") for name in ("prompt", "negative_prompt", "image_url", "video_url")}
    lines = {name: printable_line(text, len(text)) for name, text in texts.items() if not text.startswith("data:")}
    return {name: line for name, line in lines.items() if line}


def hide(line: str, private: Mapping[str, str]) -> str:
    """Return `line` with the name of a text of `private` in the place of each part that repeats it.

    A part is 12 characters or more that are in both, or the whole of a text that is shorter.
    """
    for name, text in private.items():
        for start, end in reversed(echoes(line, text)):
            line = f"{line[:start]}[{name}]{line[end:]}"
    return line


def echoes(line: str, text: str) -> list[tuple[int, int]]:
    """Return where parts of `text` begin and end in `line`, whatever their case."""
    if len(text) < ECHO_LENGTH:
        return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", line, re.IGNORECASE)]
    spans: list[tuple[int, int]] = []
    folded = text.casefold()  # of a part it is the same as within the whole, which `lower` is not
    for start in range(len(line) - ECHO_LENGTH + 1):
        end = start + ECHO_LENGTH
        if line[start:end].casefold() in folded:
            first = spans.pop()[0] if spans and start <= spans[-1][1] else start
            spans.append((first, end))
    return [(end - len(line[start:end].lstrip()), start + len(line[start:end].rstrip())) for start, end in spans]
