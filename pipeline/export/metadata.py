"""Text that a file keeps, or that lies beside it where its format keeps none."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .encodings import Encoding
from .file import as_export_error, video_file

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
"""A text in JSON, with its quotes."""


def to_json(value: Any) -> str:
    """Return `value` as JSON, with null for NaN and infinity, which many readers refuse."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(finite, allow_nan=False)


def metadata_for(target: Encoding, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return `metadata` as the format's readers take it.

    ComfyUI's frontend finds the end of a WebM's graph by counting braces, also those in texts. Escaped ones mean the
    same to a reader of JSON, and are not counted.
    """
    if target.format.container != "webm":
        return dict(metadata)
    return {key: QUOTED.sub(_without_braces, text) if is_json(text) else text for key, text in metadata.items()}


def is_json(text: str) -> bool:
    return not isinstance(read_json(text), str)


def _without_braces(quoted: re.Match[str]) -> str:
    return quoted[0].replace("{", r"\u007b").replace("}", r"\u007d")


@contextmanager
def video_file_with_sidecar(path: Path, target: Encoding, metadata: Mapping[str, str]) -> Iterator[Path]:
    """As `video_file`, and where the format keeps no metadata they lie beside the file, in `sidecar_of` it."""
    if target.keeps_metadata:
        with video_file(path) as temporary:
            yield temporary
        return
    sidecar = sidecar_of(path)
    if metadata:
        with video_file(sidecar) as text, video_file(path) as temporary:
            with as_export_error(sidecar):
                text.write_text(to_json(as_workflow(metadata)), encoding="utf-8")
            yield temporary
        return
    with video_file(path) as temporary:
        yield temporary
    if sidecar.is_file():
        # That of the file that was replaced.
        with as_export_error(sidecar):
            sidecar.unlink()


def sidecar_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def as_workflow(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The workflow itself, which can be dropped on ComfyUI's canvas as JSON, and the rest under its `extra`."""
    values = {key: read_json(text) for key, text in metadata.items()}
    workflow = values.pop("workflow", None)
    if isinstance(workflow, dict):
        values = {**workflow, "extra": {**(workflow.get("extra") or {}), **values}}
    return values


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
