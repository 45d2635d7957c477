"""The pack's texts in other languages: locales/LANGUAGE.json, and the files that the frontend and web/js read."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.messages import messages

LOCALES = environment.REPO / "locales"
WORDS = LOCALES / "words.json"
SPOKEN = environment.REPO / "web" / "messages"
LANGUAGES = ("zh", "zh-TW", "ja", "ko", "fr", "es", "ru")
"""Every frontend that is tested offers them."""


NOT_WORDS = re.compile(r"'[^']*'|\*[a-z_ ]+\*|\([a-z_]+\)|%[^%]+%|[\w./]*/[\w./]*")
"""Values, names of inputs, codes in names of files, and paths."""


def words() -> dict[str, dict[str, list[str]]]:
    """Return the words that ComfyUI's own translations use, by English term and language."""
    return json.loads(WORDS.read_text(encoding="utf-8"))


def strays(language: str, translations: dict[str, str]) -> list[str]:
    """Return the texts whose translation has another word for a term, each with the words it could have."""
    found = []
    for term, by_language in words().items():
        chosen, named = by_language[language], re.compile(rf"(?<![\w.-]){term}s?(?!\w|[.-]\w)")
        for english, translation in translations.items():
            if named.search(NOT_WORDS.sub("", english)) and not any(word in translation.lower() for word in chosen):
                found.append(f"{language}: say {term!r} as {' or '.join(chosen)} in {english!r}")
    return found


def node_infos() -> list[dict[str, Any]]:
    """What ComfyUI tells its frontend of each node, without a server."""
    source = environment.comfyui_checkout() or environment.source_folder(environment.NEWEST)
    sys.path.append(str(source))
    from comfy.cli_args import args

    args.cpu = True
    from cosmos_predict25.nodes import CosmosPredict25Extension

    return [node.GET_NODE_INFO_V1() for node in asyncio.run(CosmosPredict25Extension().get_node_list())]


def english(infos: list[dict[str, Any]]) -> dict[str, Any]:
    """The nodes' own texts, as a nodeDefs.json has them."""
    return {
        info["name"]: {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": dict(texts_of_inputs(info["input"])),
            "outputs": {
                str(place): {"name": name, "tooltip": tooltip}
                for place, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
            },
        }
        for info in infos
    }


def texts_of_inputs(inputs: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Those that a dynamic combo shows too, as `combo_input`."""
    for name, (_, options) in [*inputs.get("required", {}).items(), *inputs.get("optional", {}).items()]:
        yield prefix + name, {"name": name, "tooltip": options["tooltip"]}
        for option in options.get("options", []):
            if isinstance(option, dict):
                yield from texts_of_inputs(option["inputs"], f"{prefix}{name}_")


def texts(node_defs: dict[str, Any]) -> Iterator[str]:
    for value in node_defs.values():
        yield from [value] if isinstance(value, str) else texts(value)


def translated(node_defs: dict[str, Any], translations: dict[str, str]) -> dict[str, Any]:
    return {
        name: translations[value] if isinstance(value, str) else translated(value, translations)
        for name, value in node_defs.items()
    }


def read(language: str) -> dict[str, str]:
    return json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def spoken(source: dict[str, Any], translations: dict[str, str]) -> dict[str, str]:
    """Return what web/js says: sentences, and the names of inputs, which are values in them."""
    names = [slot["name"] for node in source.values() for slot in node["inputs"].values()]
    return {text: translations[text] for text in dict.fromkeys([*messages(), *names]) if text in translations}


def write_all() -> list[str]:
    """Write the files of each language. Return the texts to translate, to remove and to mend in LANGUAGE.json."""
    source = english(node_infos())
    wanted = dict.fromkeys([*texts(source), *messages()])
    left = []
    for language in LANGUAGES:
        found = read(language)
        left += [f"{language}: translate {text!r}" for text in wanted if text not in found]
        left += [f"{language}: remove {text!r}" for text in found if text not in wanted]
        left += strays(language, found)
        write(LOCALES / language / "nodeDefs.json", translated(source, {text: text for text in wanted} | found))
        write(SPOKEN / f"{language}.json", spoken(source, found))
    return left
