"""Runs a ComfyUI server in its own process and speaks its HTTP and websocket API."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACK_FOLDER = "cosmos-predict25"
BASE_FOLDERS = ("custom_nodes", "input", "models", "output", "user")
START_SECONDS = 300
PORTS = range(20000, 32000)
"""Below those that a system hands out: while a server starts, its port goes to no program that asks for any."""

WIDGET_KINDS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR")
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
SEED_NAMES = ("seed", "noise_seed")
NOTES = ("Note", "MarkdownNote")
MUTED = 2

PREVIEW_IMAGE = 1
PROGRESS_TEXT = 3


class ComfyUIError(RuntimeError):
    """The server does not do what was asked of it; the message says what and where to look."""


class PromptRefusedError(ComfyUIError):
    """ComfyUI did not accept a prompt; `error` and `node_errors` are what it answered."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.error: dict[str, Any] = answer["error"]
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        super().__init__(f"ComfyUI refused the prompt: {json.dumps(answer, indent=2)}")


class PromptFailedError(ComfyUIError):
    """A prompt ended with an error or was interrupted; `entry` is its history entry."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry
        event, details = entry["status"]["messages"][-1]
        reason = f"{details.get('node_type')}: {details.get('exception_message', event)}"
        super().__init__(f"The prompt did not finish: {reason}")


@dataclass(frozen=True)
class Message:
    """A websocket message. `image` holds the JPEG or PNG bytes of a "preview"."""

    type: str
    data: dict[str, Any]
    image: bytes | None = None


class ComfyUI:
    """A ComfyUI on a loopback port that runs on the CPU and writes below its own base directory only.

    The pack is linked into the base directory's custom_nodes; the ComfyUI source stays as it is.
    """

    def __init__(
        self,
        source: Path,
        base: Path,
        pack: Path,
        *,
        log: Path | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self.base = base
        self.pack = pack
        self.log = log or base / "comfyui.log"
        self.port = port or free_port()
        self.arguments = arguments
        self.environ = environ or {}
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = base / "output"
        self.models = base / "models"
        self.client_id = uuid.uuid4().hex
        # A proxy from the environment must not get requests for 127.0.0.1.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyUI:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._lay_out_base()
        with self.log.open("wb") as log:
            # Transformers asks the Hugging Face Hub about local tokenizers too, unless it is told to stay offline.
            environ = {**os.environ, "HF_HUB_OFFLINE": "1", **self.environ}
            self._process = subprocess.Popen(
                self._command(), cwd=self.base, env=environ, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def wait_until_stopped(self) -> None:
        if self._process is not None:
            self._process.wait()

    def memory(self) -> int:
        """Bytes of memory that the server holds (its resident set)."""
        # Comes with the environment; the rest of this module also imports without it.
        import psutil

        assert self._process is not None
        process = psutil.Process(self._process.pid)
        if sys.platform == "win32":  # where the Python of an environment starts the one that it was made with
            process = next(iter(process.children()), process)
        return process.memory_info().rss

    def object_info(self) -> dict[str, Any]:
        return self.request("/object_info")

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queues a prompt in API format and returns its id; raises PromptRefusedError."""
        try:
            return self.request("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptRefusedError(json.load(error)) from error

    def wait(self, prompt_id: str, seconds: float = 600) -> dict[str, Any]:
        """Returns the history entry of a prompt once it has ended, well or badly."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.request(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise ComfyUIError(f"Prompt {prompt_id} did not end within {seconds} s; see {self.log}.")

    def run(self, prompt: dict[str, Any], seconds: float = 600) -> dict[str, Any]:
        """Queues a prompt and returns its history entry; raises PromptRefusedError or PromptFailedError."""
        return succeeded(self.wait(self.queue(prompt), seconds))

    def follow(self, prompt: dict[str, Any]) -> Iterator[Message]:
        """Queues a prompt and yields the websocket messages of its run.

        The last one is "executing" with the node None; the history entry of its `prompt_id` is complete by then.
        """
        loop = asyncio.new_event_loop()
        messages = self._listen(prompt)
        try:
            while message := loop.run_until_complete(anext(messages, None)):
                yield message
        finally:
            loop.run_until_complete(messages.aclose())
            loop.close()

    def interrupt(self) -> None:
        self.request("/interrupt", {})

    def saved_files(self, entry: dict[str, Any]) -> list[Path]:
        """The files in the output folder that a history entry names."""
        results = [
            result for node in entry["outputs"].values() for results in node.values() for result in results
            if isinstance(result, dict) and result.get("type") == "output"
        ]  # fmt: skip
        return [self.output / result["subfolder"] / result["filename"] for result in results]

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GETs a path, or POSTs a JSON body to it, and returns the JSON of the answer, if there is any."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with self._http.open(request, timeout=300) as answer:
                content = answer.read()
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            raise ComfyUIError(f"ComfyUI does not answer at {self.url} ({error}). {self._log_end()}") from error
        return json.loads(content) if content else None

    def _lay_out_base(self) -> None:
        for name in BASE_FOLDERS:
            (self.base / name).mkdir(parents=True, exist_ok=True)
        example = self.source / "input" / "example.png"
        if example.exists():
            shutil.copy(example, self.base / "input")
        link_folder(self.base / "custom_nodes" / PACK_FOLDER, self.pack)

    def _command(self) -> list[str]:
        # Without --database-url ComfyUI keeps its database beside its source, whatever the base directory is.
        return [
            sys.executable, str(self.source / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(self.port),
            "--base-directory", str(self.base), "--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}",
            "--disable-auto-launch", "--disable-api-nodes", "--preview-method", "latent2rgb", *self.arguments,
        ]  # fmt: skip

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            code = self._process.poll()
            if code is not None:
                raise ComfyUIError(f"ComfyUI ended with exit code {code} while it started. {self._log_end()}")
            if time.monotonic() > deadline:
                raise ComfyUIError(f"ComfyUI did not answer at {self.url} in {START_SECONDS} s. {self._log_end()}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            self.request("/system_stats")
        except ComfyUIError:
            return False
        return True

    def _log_end(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return "\n".join([f"The last lines of {self.log} are:", *lines])

    async def _listen(self, prompt: dict[str, Any]) -> AsyncGenerator[Message, None]:
        # Comes with the environment; the rest of this module also imports without it.
        import aiohttp

        address = f"{self.url}/ws?clientId={self.client_id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as websocket:
            prompt_id = self.queue(prompt)
            async for packet in websocket:
                message = read_message(packet.data)
                yield message
                if message.type == "executing" and message.data == {"node": None, "prompt_id": prompt_id}:
                    return
        raise ComfyUIError(f"ComfyUI closed the connection before the prompt ended. {self._log_end()}")


def link_folder(link: Path, target: Path) -> None:
    """Make a link to a folder in place of an older one: on Windows a junction, since a link needs rights there."""
    link.unlink(missing_ok=True)
    if sys.platform == "win32":
        subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(target)], check=True, capture_output=True)
    else:
        link.symlink_to(target, target_is_directory=True)


def link_checkpoint(base: Path, checkpoint: Path) -> None:
    """Link a checkpoint into the model folder of a ComfyUI, as people do whose models are on another disk."""
    folder = base / "models" / "diffusers"
    folder.mkdir(parents=True)
    link_folder(folder / checkpoint.name, checkpoint)


def free_port() -> int:
    """One of `PORTS` on 127.0.0.1 that nobody listens at."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def succeeded(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["status"]["status_str"] != "success":
        raise PromptFailedError(entry)
    return entry


def read_message(data: str | bytes) -> Message:
    """Reads a websocket message: JSON, or a binary preview image or progress text as ComfyUI's server.py packs it."""
    if isinstance(data, str):
        message = json.loads(data)
        return Message(message["type"], message["data"])
    kind, size = struct.unpack_from(">II", data)
    if kind == PREVIEW_IMAGE:
        return Message("preview", {}, image=data[8:])
    if kind == PROGRESS_TEXT:
        return Message("text", {"node": data[8 : 8 + size].decode(), "text": data[8 + size :].decode()})
    return Message(f"binary {kind}", {})


def to_api_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Converts a workflow as the frontend saves it to the format of POST /prompt.

    `object_info` is the server's answer to /object_info. Raises ComfyUIError for a node that the server does not have.
    """
    links = {link_id: [str(node_id), slot] for link_id, node_id, slot, *_ in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in NOTES or node.get("mode") == MUTED:
            continue
        if kind not in object_info:
            raise ComfyUIError(f"Node {node['id']} is a `{kind}`, which this ComfyUI lacks: its log may say why.")
        linked = {slot["name"]: links[slot["link"]] for slot in node.get("inputs", []) if slot["link"] is not None}
        values = read_widgets(object_info[kind]["input"], deque(node.get("widgets_values", [])))
        prompt[str(node["id"])] = {"class_type": kind, "inputs": {**values, **linked}}
    return prompt


def read_widgets(inputs: dict[str, Any], values: deque[Any], prefix: str = "") -> dict[str, Any]:
    """Takes the next saved value for each widget. The inputs that a dynamic combo shows follow it, as `combo.input`.

    A workflow saved before a node got its last widgets has no values for them; ComfyUI then takes the node's own.
    """
    found: dict[str, Any] = {}
    for name, (kind, *rest) in [*inputs.get("required", {}).items(), *inputs.get("optional", {}).items()]:
        options = rest[0] if rest else {}
        if not values:
            break
        if kind == DYNAMIC_COMBO:
            key = found[prefix + name] = values.popleft()
            shown = next(option["inputs"] for option in options["options"] if option["key"] == key)
            found |= read_widgets(shown, values, f"{prefix}{name}.")
        elif (isinstance(kind, list) or kind in WIDGET_KINDS) and not options.get("forceInput"):
            found[prefix + name] = values.popleft()
            # The frontend saves "fixed", "randomize" and the like after a seed.
            if options.get("control_after_generate", name in SEED_NAMES):
                values.popleft()
    return found
