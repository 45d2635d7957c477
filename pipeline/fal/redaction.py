"""Texts that go to a screen, a log or a file, without what must not be there."""

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from .key import FalKey

REDACTED = "[redacted]"
MAX_REDACTED = 4000
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
LINE_LENGTH = 200
HIDDEN = 12
"""Characters of a prompt that are hidden where they stand together."""


def printable_line(text: str, length: int = LINE_LENGTH) -> str:
    """One line of at most `length` printable characters."""
    line = ESCAPES.sub("", text[: 4 * length])
    line = "".join(character if character.isprintable() else " " for character in line)
    return " ".join(line.split())[:length]


def without_key(value: Any, key: FalKey | None) -> Any:
    """A value of JSON with nothing of the key in its texts. All that a server says goes through here."""
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
    """`text` without credentials, the content of data URIs, the query strings of URLs, and where a file is at fal.

    No more than the first 4000 characters, so that no text of a server's can make this slow.
    """
    text = text[:MAX_REDACTED]
    text = re.sub(r"(?i)\bkey\s{1,4}[\w.+/=\[\]-]{1,200}:[\w.+/=\[\]-]+", f"Key {REDACTED}", text)
    text = re.sub(r"(?i)\b(bearer|basic)\s{1,4}[\w.+/=-]{12,}", rf"\1 {REDACTED}", text)
    text = re.sub(r"data:([\w.+/-]{0,60})[\w;=.+-]{0,60},[A-Za-z0-9+/=_%-]*", rf"data:\1,{REDACTED}", text)
    text = re.sub(r"(https://[\w.-]{0,60}fal\.media)/[^\s\"'<>]*", rf"\1/{REDACTED}", text)
    return re.sub(r"(https?://[^\s?\"'<>]{1,500})\?[^\s\"'<>]*", rf"\1?{REDACTED}", text)


def hide_prompts(error: BaseException, sent: Mapping[str, Any]) -> None:
    """Take what fal repeats of the input out of an error's message, which goes to logs and to the history."""
    message = str(error)
    for name in ("prompt", "negative_prompt", "image_url", "video_url"):
        private = printable_line(sent.get(name, ""), len(message))
        at = message.find(private[:HIDDEN]) if len(private) >= HIDDEN else -1
        if at >= 0:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(message[at:], private, strict=False))
            message = message.replace("".join(character for character, _ in same), f"[{name}]")
    error.args = (message,)
