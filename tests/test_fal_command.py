"""The overview of paid jobs: python -m cosmos_predict25.fal."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Reset, content_policy
from cosmos_predict25.pipeline.errors import JobKeptError
from cosmos_predict25.pipeline.fal.command import main
from cosmos_predict25.tests.fal import BRIEF, REQUEST, error_of, journal_of, make, only_id, run, videos_of


def command(fal: FalStandIn, *words: str) -> str | None:
    return main([*words, "--records", str(journal_of(fal).folder), "--videos", str(videos_of(fal))])


def listed(fal: FalStandIn, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert command(fal, "jobs", "--json") is None
    return json.loads(capsys.readouterr().out)


def test_jobs_are_listed_with_price_state_and_file(fal: FalStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(make(fal)).path
    found = listed(fal, capsys)
    (job,) = found["jobs"]
    (record,) = journal_of(fal).records()
    assert {**job, "date": ""} == {
        "date": "",
        "endpoint": "fal-ai/cosmos-predict-2.5/text-to-video",
        "seed": 7,
        "state": "DONE",
        "price": 0.2,
        "request_id": only_id(fal),
        "id": record.fingerprint,
        "file": str(path),
    }
    day = job["date"][:10]
    assert (found["days"], found["months"], found["today"]) == ({day: 0.2}, {day[:7]: 0.2}, 0.2)
    assert command(fal, "jobs") is None
    shown = capsys.readouterr().out
    for text in (day, "text-to-video", "seed 7", "DONE", "$0.20", only_id(fal), path.name, f"Day {day}: $0.20"):
        assert text in shown


def test_each_job_of_a_video_has_a_row_and_the_sum_is_that_of_fal(
    fal: FalStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    fal.fail_next(content_policy)
    error_of(fal)
    assert command(fal, "forget", only_id(fal)) is None
    run(make(fal))
    run(make(fal, replace(REQUEST, seed=8)))
    found = listed(fal, capsys)
    assert [(job["seed"], job["state"], bool(job["file"])) for job in found["jobs"]] == [
        (7, "ENDED", False),
        (7, "DONE", True),
        (8, "DONE", True),
    ]
    assert found["today"] == pytest.approx(0.2 * fal.accepted)


def test_fetch_brings_the_videos_of_unfinished_jobs_and_sends_none(
    fal: FalStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    fal.run_seconds = math.inf
    with pytest.raises(JobKeptError):
        run(make(fal, policy=BRIEF))
    fal.complete(only_id(fal))
    assert command(fal, "fetch", "--json") is None
    (video,) = json.loads(capsys.readouterr().out)
    assert (Path(video["file"]).stat().st_size > 0, video["seed"]) == (True, 7)
    assert (fal.accepted, len(fal.requests("submit"))) == (1, 1)
    assert command(fal, "fetch") is None
    assert capsys.readouterr().out == "There is no unfinished job.\n"


def test_a_forgotten_job_is_sent_again_and_stays_counted(fal: FalStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", Reset(), times=FOREVER)
    error_of(fal)
    (record,) = journal_of(fal).records()
    assert command(fal, "forget", record.fingerprint[:8]) is None
    assert "Forgotten: the same values with seed 7 send a new job, which is a new charge." in capsys.readouterr().out
    assert listed(fal, capsys)["today"] == pytest.approx(0.2)
    run(make(fal))
    assert fal.accepted == 2


def test_an_id_of_no_job_and_a_folder_without_records_are_refused(
    fal: FalStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make(fal))
    assert "0 jobs have an ID that begins with 'nothing'" in str(command(fal, "forget", "nothing"))
    monkeypatch.chdir(tmp_path)
    assert str(main(["jobs"])).startswith(
        f"There is no folder {tmp_path}/user/__cosmos_predict25/fal_jobs: give --comfyui"
    )


@pytest.mark.parametrize("how", ["module", "file"])
def test_it_runs_as_a_module_and_as_a_file_of_a_folder_of_custom_nodes(
    fal: FalStandIn, tmp_path: Path, how: str
) -> None:
    """In a folder of any name, for the ComfyUI that it is in."""
    run(make(fal))
    comfyui = tmp_path / "ComfyUI"
    records = comfyui / "user" / "__cosmos_predict25" / "fal_jobs"
    records.parent.mkdir(parents=True)
    journal_of(fal).folder.rename(records)
    pack = comfyui / "custom_nodes" / "any-name"
    pack.parent.mkdir()
    pack.symlink_to(REPO, target_is_directory=True)
    program = ["-m", "cosmos_predict25.fal"] if how == "module" else [str(pack / "fal.py")]
    done = subprocess.run([sys.executable, *program, "jobs"], cwd=comfyui, capture_output=True, text=True, check=True)
    assert only_id(fal) in done.stdout


def test_the_overview_brings_no_torch() -> None:
    program = "import sys\nimport cosmos_predict25.pipeline.fal.command\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
