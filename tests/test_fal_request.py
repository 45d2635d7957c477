"""What is sent to fal: the input, the options, the addresses of the job."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST, OTHER_ID
from cosmos_predict25.devtools.fal_standin import FalStandIn, Json, Reset, without_fields
from cosmos_predict25.devtools.fal_standin.inputs import ENDPOINTS, with_defaults
from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.fal import DISTILLED, TEXT_TO_VIDEO, Endpoint, FalClient
from cosmos_predict25.pipeline.fal.endpoints import IMAGE_TO_VIDEO, VIDEO_TO_VIDEO, arguments
from cosmos_predict25.pipeline.fal.queue.transport import USER_AGENT
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, GenerationRequest
from cosmos_predict25.tests.fal import (
    APP,
    ENDPOINT,
    INPUT,
    PROMPT,
    QUEUE,
    REQUEST,
    check_one_job,
    make,
    records_of,
    run,
    texts_of_log,
)


def test_one_video_is_one_job(fal: FalStandIn) -> None:
    video = run(make(fal))
    assert (video.num_frames, video.seed, video.path.suffix) == (9, 7, ".mp4")
    check_one_job(fal)
    (request,) = fal.requests("submit")
    assert (request.method, request.host, request.target) == ("POST", "queue.fal.run", f"/{ENDPOINT}")
    assert request.headers["authorization"] == f"Key {fal.key}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("comfyui-cosmos-predict25/")
    assert request.json() == INPUT


@pytest.mark.parametrize(
    ("endpoint", "schedule"), [(TEXT_TO_VIDEO, "few steps"), (DISTILLED, "few steps"), (DISTILLED, "distilled")]
)
def test_a_local_schedule_changes_nothing(endpoint: Endpoint, schedule: str) -> None:
    request = GenerationRequest(prompt=PROMPT, seed=7, num_inference_steps=4, guidance_scale=1)
    assert arguments(endpoint, replace(request, schedule=schedule)) == arguments(endpoint, request)


@pytest.mark.parametrize("endpoint", [TEXT_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_TO_VIDEO])
def test_settings_of_a_distilled_checkpoint_are_not_paid_for_with_the_full_model(endpoint: Endpoint) -> None:
    request = GenerationRequest(prompt=PROMPT, num_inference_steps=4, guidance_scale=1, schedule="distilled")
    with pytest.raises(InvalidRequestError, match="set schedule to 'standard', num_inference_steps to 35 and guid"):
        arguments(endpoint, request)


def test_every_field_travels(fal: FalStandIn) -> None:
    fields = {
        "prompt": PROMPT,
        "negative_prompt": "",
        "num_frames": 10,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "seed": 2**31 - 1,
        "video_output_type": "GIF (.gif)",
        "video_quality": "maximum",
    }
    video = run(make(fal, GenerationRequest(**fields)))
    assert fal.requests("submit")[0].json() == {**fields, "sync_mode": False}
    assert video.path.suffix == ".gif"
    assert video.num_frames == 10


def test_sync_mode_travels(fal: FalStandIn) -> None:
    assert run(make(fal, replace(REQUEST, sync_mode=True))).num_frames == 9
    assert fal.requests("submit")[0].json() == {**INPUT, "sync_mode": True}
    assert fal.requests("media") == []


@pytest.mark.parametrize("endpoint", [TEXT_TO_VIDEO, DISTILLED], ids=["full", "distilled"])
def test_every_field_of_the_schema_is_sent_defaults_too(fal: FalStandIn, endpoint: Endpoint) -> None:
    run(make(fal, replace(REQUEST, num_inference_steps=endpoint.default_steps), endpoint=endpoint))
    sent = fal.requests("submit")[0].json()
    assert sent.keys() == ENDPOINTS[endpoint.id].model_fields.keys()
    assert sent == {**with_defaults(endpoint.id, sent), "seed": 7}
    assert sent["negative_prompt"] == DEFAULT_NEGATIVE_PROMPT


def test_a_seed_that_was_not_given_is_drawn_here_and_sent(fal: FalStandIn) -> None:
    video = run(make(fal, replace(REQUEST, seed=None)))
    assert fal.requests("submit")[0].json() == {**INPUT, "seed": video.seed}


def test_the_distilled_endpoint_has_no_guidance_scale(fal: FalStandIn) -> None:
    run(make(fal, replace(REQUEST, guidance_scale=3.0, num_inference_steps=20), endpoint=DISTILLED))
    (request,) = fal.requests("submit")
    assert request.target == f"/{DISTILLED.id}"
    assert request.json() == {
        **{name: value for name, value in INPUT.items() if name != "guidance_scale"},
        "num_inference_steps": 20,
    }


@pytest.mark.parametrize("steps", [21, 35, 50])
def test_steps_out_of_the_distilled_range_are_refused_before_any_traffic(fal: FalStandIn, steps: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"num_inference_steps is {steps}.*1 to 20"):
        run(make(fal, replace(REQUEST, num_inference_steps=steps), endpoint=DISTILLED))
    assert fal.connects == []


def test_the_options_travel_and_no_log_has_the_webhook(fal: FalStandIn, caplog: pytest.LogCaptureFixture) -> None:
    webhook = "https://example.com/done?a=1&b=ä"
    run(make(fal, webhook_url=webhook, store=False))
    (request,) = fal.requests("submit")
    assert request.target.isascii()
    assert request.query == {"fal_webhook": [webhook]}
    assert request.headers["x-fal-store-io"] == "0"
    assert request.json() == INPUT
    assert "example.com" not in texts_of_log(caplog)


def test_without_options_none_is_sent(fal: FalStandIn) -> None:
    run(make(fal))
    (request,) = fal.requests("submit")
    assert [name for name in request.headers if name.startswith("x-fal")] == []
    assert request.query == {}


@pytest.mark.parametrize(
    "option",
    [
        {"webhook_url": "http://example.com"},
        {"webhook_url": "https://user:word@example.com"},
        {"webhook_url": "https:///done"},
        {"webhook_url": "https://example.com:port"},
        {"webhook_url": "done"},
        {"webhook_url": "https://example.com/\ud800"},
        {"webhook_url": f"https://example.com/{'x' * 65_500}"},
    ],
    ids=lambda option: ascii(option)[:60],
)
def test_an_option_that_fal_would_refuse_is_refused_here(fal: FalStandIn, option: dict[str, Any]) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match=f"{next(iter(option))}|URL is too long"):
            run(make(fal, **option))
        assert fal.requests("submit") == []
        assert records_of(fal) == []
    run(make(fal))
    assert fal.accepted == 1


@pytest.mark.parametrize(
    "arguments", [{"prompt": "\ud800"}, {"prompt": "a", "guidance_scale": float("nan")}, {"prompt": b"bytes"}], ids=str
)
def test_arguments_that_are_no_json_are_refused_before_any_traffic(fal: FalStandIn, arguments: dict[str, Any]) -> None:
    async def work() -> None:
        async with FalClient(policy=FAST) as client:
            await client.submit(ENDPOINT, arguments)

    with pytest.raises(InvalidRequestError):
        run(work())
    assert fal.connects == []


@pytest.mark.parametrize(
    "endpoint_id", ["", "fal-ai", "fal-ai/../x", "fal-ai/app/requests/1", "/fal-ai/app", "fal-ai/app?x=1", "fal-ai//a"]
)
def test_an_id_that_is_no_endpoint_is_refused_before_any_traffic(fal: FalStandIn, endpoint_id: str) -> None:
    async def work() -> None:
        async with FalClient(policy=FAST) as client:
            await client.submit(endpoint_id, INPUT)

    with pytest.raises(InvalidRequestError, match="not a fal endpoint"):
        run(work())
    assert fal.connects == []


NAMES = ("status_url", "response_url", "cancel_url")

BAD_URLS = {
    "evil": "https://evil.example/{path}",
    "evil-as-user": "https://queue.fal.run@evil.example/{path}",
    "evil-subdomain": "https://queue.fal.run.evil.example/{path}",
    "backslash": "https://queue.fal.run\\@evil.example/{path}",
    "media": "https://v3b.fal.media/{path}",
    "http": "http://queue.fal.run/{path}",
    "user": "https://user:word@queue.fal.run/{path}",
    "port": "https://queue.fal.run:8443/{path}",
    "other-id": f"{QUEUE}/{APP}/requests/{OTHER_ID}/status",
    "id-as-query": f"{QUEUE}/{APP}/requests/{OTHER_ID}?x=/{{path}}",
    "encoded-dots": f"{QUEUE}/x/%2e%2e/{{path}}",
    "fragment": f"{QUEUE}/{{path}}#x",
    "relative": "/{path}",
    "no-url": "https://[",
    "empty": "",
    "line-break": f"{QUEUE}/{{path}}\r\nx: y",
    "null": None,
    "number": 5,
    "list": [],
}


@pytest.mark.sample(8)
@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_a_url_that_is_not_the_queues_own_is_built_instead(fal: FalStandIn, url: Any) -> None:
    def change(reply: dict[str, Any]) -> dict[str, Any]:
        path = f"{APP}/requests/{reply['request_id']}"
        return {**reply, **{name: url.format(path=path) if isinstance(url, str) else url for name in NAMES}}

    fal.fault("submit", Json(change))
    run(make(fal))
    check_one_job(fal)
    (request_id,) = fal.jobs
    base = f"/{APP}/requests/{request_id}"
    assert {request.target for request in fal.requests("status")} == {f"{base}/status?logs=1"}
    assert {request.target for request in fal.requests("result")} == {base}
    assert {request.host for request in fal.requests("status")} == {"queue.fal.run"}
    assert {connect.split(":")[0] for connect in fal.connects} == {"queue.fal.run", "api.fal.ai", "v3b.fal.media"}


def test_urls_that_are_absent_are_built(fal: FalStandIn) -> None:
    fal.fault("submit", without_fields(*NAMES))
    run(make(fal))
    check_one_job(fal)


def test_other_urls_of_the_queue_are_used_as_they_are(fal: FalStandIn) -> None:
    def change(reply: dict[str, Any]) -> dict[str, Any]:
        base = f"{QUEUE}/{ENDPOINT}/requests/{reply['request_id']}"
        return {**reply, "status_url": f"{base}/status?x=1", "response_url": f"{base}/response"}

    fal.fault("submit", Json(change))
    run(make(fal))
    (request_id,) = fal.jobs
    base = f"/{ENDPOINT}/requests/{request_id}"
    assert {request.target for request in fal.requests("status")} == {f"{base}/status?x=1&logs=1"}
    assert {request.target for request in fal.requests("result")} == {f"{base}/response"}


@pytest.mark.parametrize(
    "prompt",
    [
        "x" * 2**20,
        "Ein roter Würfel, \u8d64\u3044\u7acb\u65b9\u4f53, \u0645\u0643\u0639\u0628, \U0001f7e5",
        'quotes " \\ \n \t \x00 \u2028 \x7f',
        "\ufeff \ufffe \U0001f3f3\ufe0f\u200d\U0001f308",
    ],
    ids=["1-mb", "non-ascii", "escapes", "odd"],
)
def test_the_prompt_arrives_as_it_is(fal: FalStandIn, prompt: str) -> None:
    run(make(fal, replace(REQUEST, prompt=prompt)))
    (request,) = fal.requests("submit")
    assert request.json()["prompt"] == prompt
    assert json.dumps(prompt, ensure_ascii=False).encode() in request.body
    assert int(request.headers["content-length"]) == len(request.body)
    check_one_job(fal)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_half_a_character_is_refused_here(field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        replace(REQUEST, **{field: "a cube \ud83d"})


@pytest.mark.parametrize(
    "prompt",
    ["x" * 2**20, "\u8d64\u3044\u7acb\u65b9\u4f53 \U0001f7e5", 'quotes " \\ \n'],
    ids=["1-mb", "non-ascii", "escapes"],
)
def test_a_lost_job_with_such_a_prompt_is_found(fal: FalStandIn, prompt: str) -> None:
    fal.fault("submit", Reset(accept=True))
    run(make(fal, replace(REQUEST, prompt=prompt)))
    check_one_job(fal)


def test_the_user_agent_tells_the_packs_version() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{USER_AGENT.split("/")[1].split()[0]}"' in project


def test_without_pyav_nothing_can_be_paid_for() -> None:
    """It is what a finished video is decoded with."""
    program = "import sys; sys.modules['av'] = None; from cosmos_predict25.pipeline import fal; fal.generate"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "import of av halted" in done.stderr


@pytest.mark.slow
def test_no_module_takes_the_place_of_a_public_name() -> None:
    """An import of a submodule makes its name the package's attribute."""
    program = (
        "from importlib import import_module\n"
        "from pkgutil import walk_packages\n"
        "from cosmos_predict25 import pipeline\n"
        "from cosmos_predict25.pipeline import fal\n"
        "for package in (pipeline, fal):\n"
        "    modules = {name for _, name, _ in walk_packages(package.__path__)}\n"
        "    print(sorted(modules & set(package.__all__)))\n"
        "import_module('cosmos_predict25.pipeline.fal.extension')\n"
        "print(callable(fal.generate), callable(fal.extend))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "True True"]
