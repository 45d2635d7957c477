"""The sentences that nodes and templates show, found in the sources and the workflows.

A sentence has {0}, {1}, ... for its values: by it, web/js/language.js finds the translation of a finished text. So the
sources hold plain English and know nothing of languages.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from cosmos_predict25.devtools.environment import REPO

COMMANDS = ("pipeline/batch/", "pipeline/fal/command.py", "pipeline/fal/queue/verdict.py")
"""Programs for the command line, and descriptions for their readers."""
UNSEEN_CALLS = ("logging.", "log.", "re.compile", "cast", "io.", "getattr", "hasattr", "AttributeError")
STAGES = ("progress", "start", "_show")
"""Calls whose text is shown even if it is a single word."""
UNSEEN = """
You write prompts
Turn the user's idea
Describe the scene and what is in it
Keep all that the idea names
It is one continuous
Answer with the paragraph
The picture is the first frame
You are a helpful
The video captures
Overall, the video
{%
<|im_start|>
a cat
as is
few steps
single files
X264
VP9
PRORES4444
GIF (
Demo: black
Demo: four
Demo: moving
It is uploaded to fal
For a day, anyone
Cosmos Predict2.5
Cosmos Text to Video
Node name for S&R
{0} -m torch.distributed
distilled (ODE)
NVIDIA GeForce
NVIDIA H
T5 (
UMT5 (
Cosmos 1.0
HTTP {0}
Key {0}
"
pip install {0}
download {0} --
comfyui-cosmos
out of memory
not enough gpu
un the same again
in progress
post[
pre[
{0} processes cannot share
Use --nproc_per_node
{0} is not a fal request id
webhook_url is
{0} must be https
The input cannot be sent as JSON
starts from a file
takes no media
{0} must be a data URI
{0} must end in one
fps must be a number
fps is {0}, but its numerator
The frames' shape
The frames are {0}, but must be floats
alpha
The frames have 4 channels
frame_rate is
The shape of the picture
The picture or clip to start from is
The images are a
module {0}
Character {0} of
{0} must be true or false
a number
a whole number
""".strip().splitlines()
"""Beginnings of texts that no user of the nodes sees: a model reads them, or they are names, or errors of programs."""
WORDS = ("resident", "streamed", "muted", "bypassed")
"""Values in sentences that are a single word."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z{'\"])")
JOINT = re.compile(r"^\{\}\s+(?=[A-Z][a-z]* )|(?<=[.!?])\s+\{\}$")
"""A whole sentence before or behind another."""
PROSE = re.compile(r"[A-Za-z]{2}.* .*|.* .*[A-Za-z]|^[A-Z][a-z]+\.?$")
COMMANDS_OF_A_NOTE = re.compile(r"```.*?```", re.DOTALL)
SPOKEN_IN_JS = re.compile(r"tell\('([^']+)', (?:'([^']+)'|\"([^\"]+)\")\)")


def messages() -> list[str]:
    """Return all sentences that nodes show, in the order of the files."""
    found = [*WORDS, *texts_of_templates()]
    found += [text for file in sources() for text in texts_in(ast.parse(file.read_text(encoding="utf-8")))]
    for file in sorted((REPO / "web" / "js").glob("*.js")):
        found += [text for match in SPOKEN_IN_JS.findall(file.read_text(encoding="utf-8")) for text in match]
    sentences = dict.fromkeys(sentence for text in found for sentence in sentences_of(text))
    return [sentence for sentence in sentences if not sentence.startswith(tuple(UNSEEN))]


def texts_of_templates() -> Iterator[str]:
    """Yield the titles, the notes without their commands, and the labels of all workflows."""
    for file in sorted((REPO / "workflows").glob("*.json")):
        for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]:
            yield node.get("title", "")
            yield from (slot.get("label", "") for slot in node.get("inputs", []))
            if node["type"] == "MarkdownNote":
                yield COMMANDS_OF_A_NOTE.sub("", node["widgets_values"][0])


def sources() -> Iterator[Path]:
    for room in ("nodes", "pipeline"):
        for file in sorted((REPO / room).rglob("*.py")):
            if not file.relative_to(REPO).as_posix().startswith(COMMANDS):
                yield file


def texts_in(node: ast.AST) -> Iterator[str]:
    """Yield the strings of a syntax tree that could be prose, with {} for each value in them."""
    if is_unseen(node):
        return
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield node.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(STAGES):
        yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))
    types = [getattr(node, name, None) for name in ("annotation", "returns")]
    for child in ast.iter_child_nodes(node):
        if child not in types and not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from texts_in(child)


def is_unseen(node: ast.AST) -> bool:
    """Return whether a part of a syntax tree has no text for people: a docstring, a schema, a type or a log."""
    if isinstance(node, ast.FunctionDef):
        return node.name == "define_schema"
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).startswith(UNSEEN_CALLS)
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.Assert | ast.Subscript)


def sentences_of(text: str) -> Iterator[str]:
    """Yield the sentences of a text, with numbered values."""
    for line in text.splitlines():
        for sentence in SENTENCE_END.split(re.sub(r"\{\}(?:\s*\{\})+", "{}", line).strip()):
            parts = JOINT.sub("", sentence).strip().split("{}")
            numbered = "".join(f"{{{number}}}{part}" for number, part in enumerate(parts, -1))[len("{-1}") :]
            if numbered in WORDS or PROSE.search(re.sub(r"\{\d+\}", "", numbered)):
                yield numbered
