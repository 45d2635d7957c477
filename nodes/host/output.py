"""Files in ComfyUI's folders, and their display on a node."""

import os
import secrets
from math import ceil
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...pipeline.errors import ExportError, InvalidRequestError
from .observers import NodeObserver
from .videos import Source

if TYPE_CHECKING:
    from ...pipeline.formats import VideoFormat

PROXY_SIDE = 960
RESULT = "cosmos_predict25"
"""The name by which web/js knows what to show on a node: in its `ui` output, and of an event."""
EXAMPLES = ("video/cosmos", "cosmos")
"""Examples of a prefix. The second has no folder, which could be a link."""


def prompt_folder() -> Path:
    """Return the folder for the embeddings of prompts, which no browser can read."""
    return Path(folder_paths.get_system_user_directory("cosmos_predict25"), "prompt_embeds")


def check_prefix(filename_prefix: str) -> None:
    """Raise `InvalidRequestError` unless the prefix names a file in the output folder."""
    if PureWindowsPath(filename_prefix).is_absolute() or not is_in_output(filename_prefix):
        example = next(name for name in EXAMPLES if is_in_output(name))
        raise InvalidRequestError(
            f"filename_prefix is {filename_prefix!r}, but must name a file in the output folder, also after following "
            f"links: try {example}."
        )


def is_in_output(filename_prefix: str) -> bool:
    """Return whether ComfyUI's own nodes save to this name. Before 0.30 they do not follow links in the folder."""
    output = folder_paths.get_output_directory()
    subfolder, name = os.path.split(os.path.normpath(filename_prefix))
    folder = Path(os.path.normpath(Path(output, subfolder)))
    if name in ("", os.curdir, os.pardir):
        return False
    if hasattr(folder_paths, "is_within_directory"):
        return folder_paths.is_within_directory(output, str(folder))
    return folder.is_relative_to(output)


def check_output(filename_prefix: str, target: "VideoFormat") -> None:
    """Raise `ExportError` if a file with this prefix cannot be written to the output folder."""
    from ...pipeline.export.file import check_room
    from ...pipeline.export.metadata import sidecar_of

    path = Path(folder_paths.get_output_directory(), f"{filename_prefix}_00001_{target.suffix}")
    try:
        check_room(sidecar_of(path) if target.container == "gif" else path)
    except ExportError as error:
        raise ExportError(f"{error} Or change filename_prefix on the node.") from error


def check_fal_folder() -> None:
    """Raise `ExportError` if fal's videos cannot be written, before anything is charged."""
    from ...pipeline.export.file import check_room
    from .past_jobs import fal_folders

    check_room(fal_folders()["folder"] / "cosmos.mp4")


def next_output_file(filename_prefix: str, extension: str, width: int, height: int) -> Path:
    """Return the next free file of ComfyUI's numbering, in a folder that exists. Raises `ExportError` if it cannot."""
    output = folder_paths.get_output_directory()
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(filename_prefix, output, width, height)
    except OSError as error:
        raise ExportError(
            f"The folder of {filename_prefix!r} in {output} cannot be used ({error.strerror}): choose another "
            "filename_prefix, or allow ComfyUI to write there."
        ) from error
    return Path(folder, f"{name}_{counter:05}_{extension}")


def file_metadata(prompt: Any, extra_pnginfo: dict[str, Any] | None, values: dict[str, Any] | None) -> dict[str, str]:
    """Return a file's metadata: the graph, to drop on ComfyUI's canvas, and the values of the video."""
    from ...pipeline.export.metadata import to_json

    if args.disable_metadata:
        return {}
    kept = {**(extra_pnginfo or {}), "prompt": prompt, "comment": values}
    return {name: to_json(value) for name, value in kept.items() if value is not None}


def make_proxy(source: Source, background: tuple[float, float, float], observer: NodeObserver) -> Path:
    """Make a small MP4 in ComfyUI's temp folder, to show a video that browsers cannot play."""
    from ...pipeline.export import export

    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    proxy = folder / f"cosmos_{secrets.token_hex(8)}.mp4"
    small = source.thinned(max(1, ceil(max(source.size) / PROXY_SIDE)))
    export(**vars(small), path=proxy, quality="low", background=background, observer=observer)
    return proxy


def result_on_node(*lines: str) -> dict[str, Any]:
    """Return the `ui` of a node with `lines` below it, which web/js shows. Progress texts go when a job ends."""
    return {RESULT: list(lines)}


def show_on_running_node(*lines: str) -> None:
    """Show `lines`, or take older ones away, on the node that runs now where that is not one of this pack."""
    context, server = get_executing_context(), PromptServer.instance
    assert context
    event = {"node": context.node_id, "prompt_id": context.prompt_id, "output": result_on_node(*lines)}
    server.send_sync(RESULT, event, server.client_id)


def shown_on_node(path: Path, proxy: Path | None) -> dict[str, Any]:
    """Return the `ui` of a node that saved a video at `path`. `proxy`: the file that is shown in its place."""
    saved = saved_result(path, io.FolderType.output)
    if proxy:
        return {**ui.PreviewVideo([saved_result(proxy, io.FolderType.temp)]).as_dict(), "files": [saved]}
    return ui.PreviewVideo([saved]).as_dict()


def saved_result(path: Path, folder: io.FolderType) -> ui.SavedResult:
    root = folder_paths.get_directory_by_type(folder.value)
    assert root
    subfolder = os.path.relpath(path.parent, root)
    return ui.SavedResult(path.name, "" if subfolder == os.curdir else subfolder, folder)
