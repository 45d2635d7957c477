"""An error that fal tells shows nothing of the input, however short it is and wherever the echo begins."""

from dataclasses import replace

import pytest

from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Outcome, Reply, with_fields
from cosmos_predict25.pipeline.errors import FalError
from cosmos_predict25.tests.fal import BRIEF, PROMPT, REQUEST, Recorder, error_of, make, run, texts_of_log

OWN = {"x-fal-request-id": "12345678"}
NEGATIVE = "Nothing that someone with taste could not want either."
ECHOES = {
    "from its middle": (PROMPT, f"flagged: {PROMPT[6:30]}", "flagged: [prompt]"),
    "its end": (PROMPT, f"flagged: {PROMPT[20:]}", "flagged: [prompt]"),
    "without capitals": (PROMPT, f"flagged: {PROMPT.lower()}", "flagged: [prompt]"),
    "twice": (PROMPT, f"{PROMPT[:15]}, and {PROMPT[30:]}", "[prompt], and [prompt]"),
    "of a short prompt": ("a red cat", "flagged: 'a red cat' (cats are not)", "flagged: '[prompt]' (cats are not)"),
    "of one word": ("cat", "No cat, no category", "No [prompt], no category"),
    "of an unprintable prompt": ("\u200b", "flagged: it is blank", "flagged: it is blank"),
    "with line breaks": ("A red\n\ncube\ton a belt", "flagged: A red cube on a belt", "flagged: [prompt]"),
}


@pytest.mark.parametrize(("prompt", "said", "shown"), ECHOES.values(), ids=ECHOES)
def test_an_echo_of_the_prompt_is_hidden(fal: FalStandIn, prompt: str, said: str, shown: str) -> None:
    fal.fail_next(Outcome(422, {"detail": said}))
    with pytest.raises(FalError) as caught:
        run(make(fal, replace(REQUEST, prompt=prompt)))
    assert f": {shown} (HTTP 422)" in str(caught.value)


def test_an_echo_of_the_negative_prompt_is_hidden(fal: FalStandIn) -> None:
    fal.fail_next(Outcome(422, {"detail": f"flagged: {NEGATIVE[8:]}"}))
    assert "flagged: [negative_prompt]" in str(error_of(fal, replace(REQUEST, negative_prompt=NEGATIVE)))


@pytest.mark.parametrize("stage", ["submit", "status", "result", "listing"])
def test_no_stage_shows_the_prompt(fal: FalStandIn, caplog: pytest.LogCaptureFixture, stage: str) -> None:
    if stage == "listing":
        fal.fault("submit", Reply(502), times=FOREVER)
    fal.fault(stage, Reply(422, OWN, {"detail": f"flagged: {PROMPT[6:]}"}), times=FOREVER)
    assert PROMPT[6:30] not in str(error_of(fal, policy=BRIEF))
    assert PROMPT[6:30] not in texts_of_log(caplog)


def test_our_own_words_stay_whole_though_the_prompt_has_them(fal: FalStandIn) -> None:
    fal.fault("result", Reply(500, OWN, {"detail": "Broken."}), times=FOREVER)
    with pytest.raises(FalError, match="run the same again to resume it, at no further charge"):
        run(make(fal, replace(REQUEST, prompt="the same again to resume it")))


def test_a_line_of_fals_log_shows_nothing_of_the_prompt(fal: FalStandIn, caplog: pytest.LogCaptureFixture) -> None:
    observer = Recorder()
    fal.fault("status", with_fields(status="IN_PROGRESS", logs=[{"message": f"Encoding {PROMPT[6:]}"}]))
    run(make(fal, observer=observer))
    shown = [*observer.messages, texts_of_log(caplog)]
    assert [text for text in shown if "Encoding [prompt]" in text]
    assert [text for text in shown if PROMPT[6:] in text] == []
