"""What web/js makes of the nodes' finished sentences in another language."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from cosmos_predict25.devtools import locales
from cosmos_predict25.devtools.messages import messages

ORIGIN = "http://frontend.test"
PACK = f"{ORIGIN}/extensions/cosmos-predict25"
WEB = Path(__file__).resolve().parents[1] / "web"
APP = """
const settings = new EventTarget()
export const app = { ui: { settings }, extensionManager: { setting: { get: () => app.language } } }
"""
SAY = """async ([language, texts]) => {
    const { app } = await import('/scripts/app.js')
    const { followLanguage, translated } = await import('/extensions/cosmos-predict25/js/language.js')
    app.language = language
    await followLanguage()
    return texts.map(translated)
}"""
SAY_AFTER_A_CHANGE = """async () => {
    const { app } = await import('/scripts/app.js')
    const { translated } = await import('/extensions/cosmos-predict25/js/language.js')
    app.language = 'fr'
    app.ui.settings.dispatchEvent(new Event('Comfy.Locale.change'))
    while (translated('Seed: 5.') !== 'Graine : 5.') await new Promise(requestAnimationFrame)
    return true
}"""


def serve(route: Route) -> None:
    url = route.request.url
    if url == f"{ORIGIN}/":
        route.fulfill(body="<!doctype html>", content_type="text/html")
    elif url == f"{ORIGIN}/scripts/app.js":
        route.fulfill(body=APP, content_type="text/javascript")
    else:
        file = WEB / url.removeprefix(PACK)[1:]
        kind = "text/javascript" if file.suffix == ".js" else "application/json"
        route.fulfill(body=file.read_text(encoding="utf-8"), content_type=kind)


@pytest.fixture
def plain(browser: Browser):
    page: Page = browser.new_page()
    page.route("**/*", serve)
    page.goto(f"{ORIGIN}/")
    yield page
    page.close()


def filled(sentence: str) -> str:
    """Return a sentence with a number for each value."""
    return re.sub(r"\{(\d)\}", r"1\1", sentence)


def test_every_sentence_is_found_by_its_finished_text(plain: Page) -> None:
    for language in locales.LANGUAGES:
        said = json.loads((locales.SPOKEN / f"{language}.json").read_text(encoding="utf-8"))
        assert set(said) > set(messages())
        found = plain.evaluate(SAY, [language, [filled(english) for english in said]])
        assert found == [filled(translation) for translation in said.values()]


JOINED = {
    "Denoising, step 3 of 35, about 2 min left": "<Denoising><, step 3 of 35><, about <2 min> left>",
    "Part 1 of 3, nothing to pay: Decoding": "<Part 1 of 3, <nothing to pay>: <Decoding>>",
    "9 frames added to 9 frames of 8x8 in 6 s, seed 7.": "<<9 frames added to <9 frames of 8x8>> in 6 s, seed 7.>",
    "A b.mp4, 1,234 kB.": "<A b.mp4, 1,234 kB.>",
    "fal could not make the video: it's bad (HTTP 422, type). A retry is likely to help. Request id: a.": (
        "<<fal could not make the video>: it's bad (HTTP 422, type).> <A retry is likely to help.> <Request id: a.>"
    ),
    "Nobody knows this. Seed: 5.\nSeed: 6.": "Nobody knows this. <Seed: 5.>\n<Seed: 6.>",
    "num_frames is 200, but must be from 1 to 93.": "<<num_frames> is 200, but must be from 1 to 93.>",
}
"""Finished texts, and the sentences in them."""


def test_sentences_are_found_in_a_text_that_is_joined_of_them(plain: Page) -> None:
    marked = {text: f"<{text}>" for text in [*messages(), "num_frames"]}
    plain.route("**/messages/zh.json", lambda route: route.fulfill(json=marked))
    assert plain.evaluate(SAY, ["zh", list(JOINED)]) == list(JOINED.values())


def test_another_language_takes_effect_when_it_is_chosen(plain: Page) -> None:
    assert plain.evaluate(SAY, ["zh", ["Seed: 5."]]) == ["\u79cd\u5b50\uff1a5\u3002"]
    assert plain.evaluate(SAY_AFTER_A_CHANGE)


def test_a_language_without_translations_stays_english_and_asks_for_no_file(plain: Page) -> None:
    asked: list[str] = []
    plain.on("request", lambda request: asked.append(request.url))
    assert plain.evaluate(SAY, ["ar", ["Seed: 5."]]) == ["Seed: 5."]
    assert not [url for url in asked if "messages" in url]


def test_the_page_knows_every_language() -> None:
    (listed,) = re.findall(r"const LANGUAGES = \[(.*)\]", (WEB / "js" / "language.js").read_text(encoding="utf-8"))
    assert re.findall(r"'(.*?)'", listed) == list(locales.LANGUAGES)
