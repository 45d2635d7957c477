"""The file of jobs: what is read, and what is refused before anything is loaded."""

import json
from pathlib import Path

import pytest

from cosmos_predict25.pipeline.batch import command
from cosmos_predict25.pipeline.batch.jobs import IMAGE, TEXT, VIDEO, InvalidJobsError, Job, read_jobs, shard_of
from cosmos_predict25.pipeline.errors import InvalidRequestError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(path: Path, *jobs: dict) -> Path:
    return write(path / "jobs.jsonl", "\n".join(map(json.dumps, jobs)))


def test_a_job_takes_nvidias_names_and_ours(tmp_path):
    file = lines(
        tmp_path,
        {"name": "a", "prompt": "p", "guidance": 3, "num_steps": 12, "num_output_frames": 77, "seed": 5},
        {"name": "b", "prompt": "p", "guidance_scale": 3, "num_inference_steps": 12, "num_frames": 77, "seed": 5},
    )
    first, second = read_jobs(file)
    assert first.request == second.request
    request = first.request
    assert (request.guidance_scale, request.num_inference_steps, request.num_frames, request.seed) == (3, 12, 77, 5)
    assert (first.inference_type, first.input_path) == (TEXT, None)


@pytest.mark.parametrize("kind", ["text2world", "image2world", "video2world"])
def test_files_in_the_form_of_nvidias_own_are_read_as_they_are(tmp_path, kind):
    write(tmp_path / "one.txt", "A robot welds.\n")
    (tmp_path / "one.jpg").touch()
    sample = {"prompt_path": "one.txt"} | ({} if kind == "text2world" else {"input_path": "one.jpg"})
    file = write(
        tmp_path / "jobs.json", json.dumps({"inference_type": kind, "samples": {"one": sample, "two": sample}})
    )
    jobs = read_jobs(file)
    assert [job.name for job in jobs] == ["one", "two"]
    assert {job.inference_type for job in jobs} == {kind}
    assert jobs[0].request.prompt == "A robot welds."
    assert jobs[0].input_path == (None if kind == "text2world" else tmp_path / "one.jpg")


def test_all_fields_of_nvidias_runner_are_read_one_file_per_job_too(tmp_path):
    (tmp_path / "belt.mp4").touch()
    fields = {
        "inference_type": "video2world", "name": "belt", "prompt": "Rocks travel on.", "input_path": "belt.mp4",
        "negative_prompt": "Blur.", "seed": 0, "guidance": 7, "resolution": "432,768", "num_output_frames": 93,
        "num_steps": 35, "enable_autoregressive": False, "chunk_size": 77, "chunk_overlap": 1,
    }  # fmt: skip
    first = write(tmp_path / "belt.json", json.dumps(fields))
    second = write(tmp_path / "long.json", json.dumps(
        {"inference_type": "text2world", "name": "long", "prompt": "It drives.", "input_path": None,
         "enable_autoregressive": True, "num_output_frames": 200}
    ))  # fmt: skip
    belt, long = read_jobs(first, second)
    request = belt.request
    assert (request.height, request.width, request.num_frames, request.guidance_scale) == (432, 768, 93, 7)
    assert (belt.new_frames, belt.num_segments, belt.inference_type) == (0, 1, VIDEO)
    assert (long.request.num_frames, long.new_frames, long.overlap, long.num_segments) == (77, 123, 1, 3)


def test_the_command_has_fields_for_every_job_of_a_folder_of_prompts(tmp_path):
    write(tmp_path / "a.txt", "one")
    defaults = command.defaults_of(["num_frames=25", "guidance=1", "schedule=distilled", "num_steps=4"])
    (job,) = read_jobs(tmp_path, defaults=defaults)
    assert (job.request.num_frames, job.request.guidance_scale, job.request.schedule) == (25, 1, "distilled")
    with pytest.raises(InvalidRequestError, match="FIELD=VALUE"):
        command.defaults_of(["num_frames"])


def test_a_single_object_and_a_list_are_read_too(tmp_path):
    job = {"name": "a", "prompt": "p", "resolution": "480,832"}
    (only,) = read_jobs(write(tmp_path / "a.json", json.dumps(job)))
    assert (only.request.height, only.request.width) == (480, 832)
    assert [job.name for job in read_jobs(write(tmp_path / "b.json", json.dumps([job, job | {"name": "b"}])))] == [
        "a",
        "b",
    ]


def test_csv_and_a_folder_of_prompts_are_read(tmp_path):
    text = 'name,prompt,num_frames,guidance,seeds\na,"red, then blue",25,2.5,\nb,p,,,2\n'
    first, *others = read_jobs(write(tmp_path / "jobs.csv", text))
    assert (first.request.prompt, first.request.num_frames, first.request.guidance_scale) == ("red, then blue", 25, 2.5)
    assert [job.name for job in others] == ["b_0", "b_1"]
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    write(prompts / "x.txt", "one")
    write(prompts / "y.txt", "two")
    assert [(job.name, job.request.prompt) for job in read_jobs(prompts)] == [("x", "one"), ("y", "two")]


def test_several_seeds_of_one_job_are_jobs_of_their_own(tmp_path):
    counted, listed = {"name": "a", "prompt": "p", "seed": 7, "seeds": 3}, {"name": "b", "prompt": "p", "seeds": [9, 4]}
    jobs = read_jobs(lines(tmp_path, counted, listed))
    assert [(job.name, job.request.seed) for job in jobs] == [
        ("a_7", 7),
        ("a_8", 8),
        ("a_9", 9),
        ("b_9", 9),
        ("b_4", 4),
    ]


def test_a_job_without_a_seed_always_has_the_same_one(tmp_path):
    file = lines(tmp_path, {"name": "a", "prompt": "p"}, {"name": "b", "prompt": "p"})
    first, second = read_jobs(file)
    assert read_jobs(file) == [first, second]
    assert first.request.seed != second.request.seed


def test_defaults_serve_the_jobs_that_do_not_say_it(tmp_path):
    file = lines(tmp_path, {"name": "a", "prompt": "p"}, {"name": "b", "prompt": "p", "num_frames": 9})
    jobs = read_jobs(file, defaults={"num_frames": 25})
    assert [job.request.num_frames for job in jobs] == [25, 9]


def test_the_type_comes_from_the_files_suffix_where_it_is_not_given(tmp_path):
    for name in ("a.png", "b.mp4"):
        (tmp_path / name).touch()
    file = lines(tmp_path, *({"name": n[0], "prompt": "p", "input_path": n} for n in ("a.png", "b.mp4")))
    assert [job.inference_type for job in read_jobs(file)] == [IMAGE, VIDEO]


WRONG = [
    ({"prompt": "p", "num_frame": 9}, "did you mean num_frames?"),
    ({"prompt": "p", "num_frames": 400}, "must be from 9 to 93"),
    ({"prompt": "p", "num_frames": "9"}, "must be a whole number"),
    ({"prompt": "  "}, "prompt is blank"),
    ({"name": "no prompt"}, "prompt is missing"),
    ({"prompt": "p", "prompt_path": "x.txt"}, "give one of the two"),
    ({"prompt": "p", "guidance": 2, "guidance_scale": 2}, "the same field"),
    ({"prompt": "p", "inference_type": "world2text"}, "must be one of text2world"),
    ({"prompt": "p", "inference_type": "image2world"}, "needs input_path"),
    ({"prompt": "p", "input_path": "nowhere.png"}, "there is no file"),
    ({"prompt": "p", "resolution": "720p"}, '"704,1280"'),
    ({"prompt": "p", "seeds": 0}, "from 1 to"),
    ({"prompt": "p", "seeds": [1, 1]}, "each once"),
    ({"prompt": "p", "seeds": [1, None]}, "seed must be a whole number"),
    ({"prompt": "p", "name": "../up"}, "cannot be the name"),
    ({"prompt": "p", "name": "a:b"}, "':'"),
    ({"prompt": "p", "name": "CON"}, "cannot be the name"),
    ({"prompt": "p", "name": "x" * 300}, "at most 200"),
    ({"prompt": "p", "schedule": "distilled", "num_steps": 36, "guidance": 1}, "1 to 4"),
    ({"prompt": "p", "enable_autoregressive": True, "chunk_overlap": 3}, "chunk_overlap is 3"),
    ({"prompt": "p", "enable_autoregressive": True, "num_frames": 2000}, "num_frames is 2000"),
    ("text", "a job is a JSON object"),
]


def test_every_wrong_job_is_named_with_its_line(tmp_path):
    file = write(tmp_path / "jobs.jsonl", "\n".join([*(json.dumps(job) for job, _ in WRONG), "{not json"]))
    with pytest.raises(InvalidJobsError) as caught:
        read_jobs(file)
    problems = dict(problem.split(": ", 1) for problem in caught.value.problems)
    for number, (_, text) in enumerate(WRONG, start=1):
        assert text in problems[f"jobs.jsonl:{number}"]
    assert "not JSON" in problems[f"jobs.jsonl:{len(WRONG) + 1}"]
    assert len(problems) == len(WRONG) + 1


def test_two_jobs_of_one_name_are_refused(tmp_path):
    with pytest.raises(InvalidJobsError, match=r"jobs.jsonl:2: .*'A' is already that of jobs.jsonl:1"):
        read_jobs(lines(tmp_path, {"name": "a", "prompt": "p"}, {"name": "A", "prompt": "p"}))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_a_file_without_jobs_or_without_text_is_refused(tmp_path, content):
    file = tmp_path / "jobs.jsonl"
    file.write_bytes(content)
    with pytest.raises(InvalidJobsError, match=r"no jobs|not UTF-8"):
        read_jobs(file)
    with pytest.raises(InvalidJobsError, match="cannot be read"):
        read_jobs(tmp_path / "nowhere.jsonl")


def test_shards_are_disjoint_and_together_all(tmp_path):
    jobs = read_jobs(lines(tmp_path, {"name": "a", "prompt": "p", "seeds": 10}))
    shards: list[list[Job]] = [shard_of(jobs, f"{index}/3") for index in range(3)]
    assert sorted((job for shard in shards for job in shard), key=lambda job: job.request.seed or 0) == jobs
    for wrong in ("3/3", "1", "-1/3", "a/b", "0/0"):
        with pytest.raises(InvalidRequestError, match="--shard"):
            shard_of(jobs, wrong)
