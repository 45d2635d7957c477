"""The texts in other languages: all of them, nothing stale, and no other numbers than the English."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from cosmos_predict25.devtools import environment, locales
from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.devtools.frontend import (
    NEXT_PICTURE,
    SIDE_BY_SIDE,
    open_page,
    open_workflow,
    press_run,
    set_values,
    take_screenshot,
    wait_for_end,
)
from cosmos_predict25.devtools.messages import messages, sentences_of

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# What is typed, looked up or filled in, and so is the same in all languages.
VERBATIM = re.compile(
    r"%[\w:-]+%|models/\w+|\.[a-z]+\b|\b[A-Z]+_[A-Z]+\b|\b(?:https|cosmos-guardrail|karras|uni_pc_bh2|deis)\b", re.ASCII
)
QUOTED = re.compile(r"(?<!\w)'([a-z ]+)'(?!\w)")
OF_A_WIDGET = re.compile(r"%([^%.]+)\.seed%")
I18N_SYNTAX = set("@{}|")
"""vue-i18n, which older frontends read tooltips with, takes these for its own."""
ASSETS = environment.env_folder("purelib") / "comfyui_frontend_package" / "static" / "assets"
LOCALE = re.compile(r'"\./([\w-]+)/(\w+)\.json":.*?import\(`\./([^`]+)`\)')
CODE = re.compile(r"`([^`\n]+)`")
HELP = REPO / "web" / "docs"
HELP_LANGUAGES = ("zh", "ja")


def numbers(text: str) -> Counter[str]:
    """With a decimal point, whichever sign the language has for it."""
    return Counter(number.replace(",", ".") for number in NUMBER.findall(text))


@pytest.fixture(scope="module")
def source(any_comfyui: ComfyUI) -> dict[str, Any]:
    """The English texts, as ComfyUI hands them to its frontend."""
    infos = any_comfyui.object_info().values()
    return locales.english([info for info in infos if info["name"].startswith("CosmosPredict25")])


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_every_text_of_every_node_is_there_and_none_is_stale(
    language: str, source: dict[str, Any], any_comfyui: ComfyUI
) -> None:
    translations = locales.read(language)
    assert set(translations) == {*locales.texts(source), *messages()}
    served = any_comfyui.request("/i18n")[language]["nodeDefs"]
    assert {name: served[name] for name in source} == locales.translated(source, translations)
    sentences = any_comfyui.request(f"/extensions/cosmos-predict25/messages/{language}.json")
    assert sentences == locales.spoken(source, translations)


def test_results_refusals_progress_and_toasts_are_translated_but_no_logs_commands_or_docstrings() -> None:
    found = messages()
    assert {"{0} frames of {1}x{2}", "Denoising", "There is no fal key.", "Nothing saves the video"} < set(found)
    assert not [text for text in found if "%s" in text or "--yes" in text or "Return" in text or "``" in text]
    assert len(found) > 400


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It is {}. {} Take {} of {}{}.", ["It is {0}.", "Take {0} of {1}."]),
        ("To get it:\n1. Press R.", ["To get it:", "Press R."]),
        (", step {} of {}", [", step {0} of {1}"]),
        ("{}. {}", []),
        ("transformer_blocks.{}", []),
    ],
)
def test_a_text_is_translated_sentence_by_sentence(text: str, sentences: list[str]) -> None:
    assert list(sentences_of(text)) == sentences


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_a_translation_keeps_numbers_and_what_is_typed(language: str) -> None:
    for english, translation in locales.read(language).items():
        assert translation.strip() == translation != "", english
        assert numbers(translation) == numbers(english), (english, translation)
        assert set(VERBATIM.findall(translation)) == set(VERBATIM.findall(english)), (english, translation)
        for value in QUOTED.findall(english):
            assert value in translation, (english, translation)
        if not set("{}") & set(english):
            assert not I18N_SYNTAX & set(translation), translation


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_a_translation_uses_the_words_of_comfyuis_own(language: str) -> None:
    assert locales.strays(language, locales.read(language)) == []
    index = next(file for file in ASSETS.glob("i18n-*.js") if LOCALE.search(file.read_text(encoding="utf-8")))
    named = {(code, part): name for code, part, name in LOCALE.findall(index.read_text(encoding="utf-8"))}
    parts = [ASSETS / named[language, part] for part in ("main", "nodeDefs", "settings")]
    said = "".join(part.read_text(encoding="utf-8") for part in parts).lower()
    for by_language in locales.words().values():
        assert any(word in said for word in by_language[language]), by_language[language]


def test_another_word_than_comfyuis_is_named() -> None:
    used = {"The seed.": "Le germe.", "2 seeds.": "2 graines.", "'the seed' of a/seed": "Rien."}
    assert locales.strays("fr", used) == ["fr: say 'seed' as graine in 'The seed.'"]


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_a_tooltip_and_a_refusal_call_a_node_as_the_frontend_does(language: str) -> None:
    """A file's name is filled in from a node by its title, which is the translated one."""
    translations = locales.read(language)
    title = translations["Sampler Settings (Cosmos Predict2.5)"].removesuffix(" (Cosmos Predict2.5)")
    found = [OF_A_WIDGET.findall(text) for text in translations.values() if OF_A_WIDGET.search(text)]
    assert found == 2 * [[title]]


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_different_nodes_have_different_names(language: str) -> None:
    node_defs = json.loads((locales.LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    names = [node["display_name"] for node in node_defs.values()]
    assert len(set(names)) == len(names)
    assert all(name.endswith(" (Cosmos Predict2.5)") for name in names)


def test_the_program_lists_what_a_changed_text_makes_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = {"name": "A", "display_name": "new", "description": "old", "input": {}, "output_name": []}
    monkeypatch.setattr(locales, "node_infos", lambda: [{**info, "output_tooltips": []}])
    monkeypatch.setattr(locales, "messages", lambda: ["Said."])
    monkeypatch.setattr(locales, "LOCALES", tmp_path)
    monkeypatch.setattr(locales, "SPOKEN", tmp_path / "messages")
    monkeypatch.setattr(locales, "LANGUAGES", ("zh",))
    (tmp_path / "zh.json").write_text('{"old": "1", "Said.": "2", "gone": "3"}')
    assert locales.write_all() == ["zh: translate 'new'", "zh: remove 'gone'"]
    assert json.loads((tmp_path / "messages" / "zh.json").read_text()) == {"Said.": "2"}
    assert json.loads((tmp_path / "zh" / "nodeDefs.json").read_text())["A"]["description"] == "1"


@pytest.mark.parametrize("language", HELP_LANGUAGES)
@pytest.mark.parametrize("english", sorted(HELP.glob("*.md")), ids=lambda file: file.stem)
def test_a_help_page_has_the_numbers_commands_links_and_names_of_the_english_one(english: Path, language: str) -> None:
    source = english.read_text(encoding="utf-8")
    page = (HELP / english.stem / f"{language}.md").read_text(encoding="utf-8")
    node = json.loads((locales.LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))[english.stem]
    assert page.startswith(f"# {node['display_name']}\n")
    assert set(numbers(source)) <= set(numbers(page))
    placed = re.compile(r"```.*?```|\]\([^)]+\)", re.DOTALL)
    assert placed.findall(page) == placed.findall(source)
    assert not re.search(r"\S\n *(?![-\s])\S", placed.sub("", page)), "the end of a line shows as a space"
    code = [set(CODE.findall(placed.sub("", text))) for text in (page, source)]
    assert {text for text in code[0] if ".seed%" not in text} == {text for text in code[1] if ".seed%" not in text}
    for name, slot in node["inputs"].items():
        assert (f"**{slot['name']}**" in page) == (f"**{name}**" in source)


SEARCHES = {
    "zh": ["\u6587\u751f\u89c6\u9891", "\u56fe\u751f\u89c6\u9891"],  # text to video, image to video
    "ja": ["\u52d5\u753b\u751f\u6210"],  # video generation
}
FOUND = ["CosmosPredict25Generate", "CosmosPredict25GenerateFal"]


# A node of a type in an empty graph, selected; returns what is written on it.
ALONE = """(type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = [100, 100]
    app.canvas.selectItems([node])
    app.canvas.draw(true, true)
    const widgets = Object.fromEntries(node.widgets.map(({ name, label }) => [name, label]))
    return { title: node.title, output: node.outputs[0].localized_name, widgets }
}"""


@contextmanager
def opened_in(language: str, server: ComfyUI, browser: Browser, **settings: Any) -> Iterator[Page]:
    """Open the frontend in another language."""
    before = {"Comfy.Locale": "en", **{name: server.request("/settings").get(name) for name in settings}}
    server.request("/settings", {"Comfy.Locale": language, **settings})
    page = open_page(browser, server)
    yield page
    page.close()
    server.request("/settings", before)


@pytest.fixture(params=HELP_LANGUAGES)
def foreign(request: pytest.FixtureRequest, server: ComfyUI, browser: Browser) -> Iterator[tuple[Page, str]]:
    """The frontend in another language, and which one."""
    with opened_in(request.param, server, browser) as page:
        yield page, request.param


@pytest.mark.sample(1)
def test_searches_nodes_and_help_are_in_the_users_language(foreign: tuple[Page, str]) -> None:
    page, language = foreign
    page.evaluate("app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', true)")
    node_defs = json.loads((locales.LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for place, words in enumerate(SEARCHES[language]):
        page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        page.keyboard.insert_text(words)
        for node in FOUND:
            expect(page.get_by_text(node_defs[node]["display_name"]).first).to_be_visible()
        take_screenshot(page, f"search {language} {place}")
        page.keyboard.press("Escape")
    shown = page.evaluate(ALONE, "CosmosPredict25SamplerSettings")
    settings = node_defs["CosmosPredict25SamplerSettings"]
    assert shown["title"] == settings["display_name"]
    assert shown["output"] == settings["outputs"]["0"]["name"]
    names = {name: slot["name"] for name, slot in settings["inputs"].items()}
    assert shown["widgets"].items() >= names.items()
    page.get_by_test_id("properties-panel").get_by_role("tab").nth(1).click()
    # Of the panel, and of the page in it.
    expect(page.get_by_role("heading", name=settings["display_name"])).to_have_count(2)
    take_screenshot(page, f"help {language}")


@pytest.mark.sample(1)
def test_a_template_its_result_and_a_refusal_are_in_the_users_language(foreign: tuple[Page, str]) -> None:
    page, language = foreign
    said = locales.read(language)
    open_workflow(page, "Cosmos Text to Video (demo)")
    titles = page.evaluate("app.graph.nodes.map(({ title }) => title)")
    assert said["Start here"] in titles
    assert said["Prompt (Cosmos Predict2.5)"] in titles
    (note,) = page.evaluate(
        "app.graph.nodes.filter((node) => node.type === 'MarkdownNote').map((n) => n.widgets[0].value)"
    )
    assert said["# Press Run: this works before anything is downloaded"] in note
    labels = page.evaluate("app.graph.nodes.flatMap(({ widgets }) => widgets ?? []).map(({ label }) => label)")
    assert said["Frames (num_frames)"] in labels
    set_values(page, "CosmosPredict25SamplerSettings", {"num_frames": 9})
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_success"
    expect(page.get_by_text(said["Demo: knows only coloured shapes."])).to_be_visible()
    expect(page.get_by_text(said["{0} frames of {1}x{2}"].format(9, 96, 96))).to_be_visible()
    set_values(page, "CosmosPredict25Prompt", {"prompt": " "})
    press_run(page)
    event = wait_for_end(page)[-1]
    refusal = said["{0} is blank."].format(said["prompt"])
    assert event["exception_message"].startswith(refusal)
    expect(page.get_by_text(refusal)).to_be_visible()
    take_screenshot(page, f"refusal {language}")


AT_FULL_SIZE = """() => {
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [50, 50]
    app.canvas.draw(true, true)
}"""
# Of the names, how many are on the nodes, and those that are cut off.
CUT_OFF = """(names) => {
    const shown = [...document.querySelectorAll('[data-node-id] *')]
        .filter((each) => !each.childElementCount && names.includes(each.textContent.trim()))
    const cut = shown.filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.textContent)
    return [shown.length, cut]
}"""


@pytest.mark.sample(1)
@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_no_name_on_a_node_is_cut_off(language: str, server: ComfyUI, browser: Browser) -> None:
    node_defs = json.loads((locales.LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    slots = [slot for node in node_defs.values() for slot in [*node["inputs"].values(), *node["outputs"].values()]]
    names = [node["display_name"] for node in node_defs.values()] + [slot["name"] for slot in slots]
    with opened_in(language, server, browser, **{"Comfy.VueNodes.Enabled": True}) as page:
        page.set_viewport_size({"width": 2400, "height": 2600})
        page.evaluate(SIDE_BY_SIDE, list(node_defs))
        page.evaluate(AT_FULL_SIZE)
        expect(page.locator("[data-node-id]")).to_have_count(len(node_defs))
        page.evaluate(NEXT_PICTURE)
        count, cut = page.evaluate(CUT_OFF, names)
        assert cut == []
        assert count > 80
        take_screenshot(page, f"all nodes {language}")
