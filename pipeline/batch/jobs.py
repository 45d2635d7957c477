"""The file of jobs: one video each, checked as a whole before anything is loaded."""

import csv
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError
from ..request import NEW_FRAMES, NUM_FRAMES, SEED, GenerationRequest, Range, check_field, check_range
from .files import Place, beside, is_file, parent, read, texts_in

TEXT, IMAGE, VIDEO = INFERENCE_TYPES = ("text2world", "image2world", "video2world")
NAMES_OF_NVIDIA = {
    "guidance": "guidance_scale",
    "num_steps": "num_inference_steps",
    "num_output_frames": "num_frames",
}
"""Field of NVIDIA's runner -> the same field of a request. Source: `InferenceArguments` of cosmos-predict2.5."""
OF_A_REQUEST = {item.name: item.type for item in fields(GenerationRequest)}
LONG, CHUNK, OVERLAP = "enable_autoregressive", "chunk_size", "chunk_overlap"
"""NVIDIA's fields of a video that is longer than the model's maximum: segments, each from the end of the last one."""
CHUNK_FRAMES = 77
"""NVIDIA's own length of a segment."""
OF_A_JOB = (
    "name",
    "prompt_path",
    "inference_type",
    "input_path",
    "resolution",
    "seeds",
    LONG,
    CHUNK,
    OVERLAP,
    *NAMES_OF_NVIDIA,
)
KINDS = {"seeds": "int", LONG: "bool", CHUNK: "int", OVERLAP: "int"}
"""The types of fields in CSV files, besides those of a request."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_NAME_BYTES = 200
"""Of a name: a file system takes 255 with the suffix and what is added while the file is written."""
MAX_SEEDS = 10_000
OVERLAPS = (5, 1)
"""As of `extend`, whose module needs torch."""
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices."""
MAX_SHOWN = 20


class InvalidJobsError(InvalidRequestError):
    """Jobs are wrong. `problems`: a sentence for each, which begins with its file and line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        shown = [*problems[:MAX_SHOWN], *([f"... and {len(problems) - MAX_SHOWN} more."] * (len(problems) > MAX_SHOWN))]
        super().__init__("\n".join(shown))


@dataclass(frozen=True)
class Job:
    """One video to make.

    `name`: of its files, without a suffix; a slash makes a folder. `request`: with its seed. `input_path`: the picture
    or clip that it starts from. `inference_type`: one of `INFERENCE_TYPES`. `new_frames`: to be added by `extend`, in
    segments that begin with the last `overlap` frames. `place`: file and line, for messages.
    """

    name: str
    request: GenerationRequest
    inference_type: str = TEXT
    input_path: Place | None = None
    new_frames: int = 0
    overlap: int = 1
    place: str = ""

    @property
    def num_frames(self) -> int:
        """Frames of the finished video."""
        return self.request.num_frames + self.new_frames

    @property
    def num_segments(self) -> int:
        return 1 + math.ceil(self.new_frames / (self.request.num_frames - self.overlap))


def read_jobs(*files: Place, defaults: Mapping[str, Any] | None = None) -> list[Job]:
    """Return the jobs in files: JSON Lines, JSON as NVIDIA's runner takes it, CSV, or a folder of .txt prompts.

    `defaults`: fields for every job that does not have them. Paths in a file are relative to it. A job without a seed
    gets one that its name determines, so the same file always makes the same videos.
    Raises `InvalidJobsError` with every wrong job.
    """
    problems: list[str] = []
    jobs: list[Job] = []
    for file in files:
        for place, folder, values in _entries(file, problems):
            try:
                jobs += _jobs_of({**(defaults or {}), **values}, place, folder)
            except InvalidRequestError as error:
                problems.append(f"{place}: {error}")
    problems += _same_names(jobs)
    if problems:
        raise InvalidJobsError(problems)
    if not jobs:
        raise InvalidJobsError([f"{', '.join(map(str, files))} has no jobs."])
    return jobs


def _entries(file: Place, problems: list[str]) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """Yield place, folder and fields of each job. What cannot be read is added to `problems`."""
    texts = texts_in(file)
    if texts is not None:
        yield from ((name, file, {"name": name[: -len(".txt")], "prompt_path": name}) for name in texts)
        return
    try:
        text = read(file).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidJobsError([f"{file} cannot be read ({reason})."]) from error
    name = str(file).replace("\\", "/").rpartition("/")[2]
    reader = {".csv": _of_csv, ".json": _of_json}.get(Path(name).suffix.lower(), _of_lines)
    for place, values in reader(text, name, problems):
        if isinstance(values, dict):
            yield place, parent(file), values
        else:
            problems.append(f"{place}: a job is a JSON object with a prompt, got {_shown(values)}.")


def _of_lines(text: str, name: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{name}:{number}", json.loads(line)
            except ValueError as error:
                problems.append(f"{name}:{number}: this line is not JSON ({error}).")


def _of_json(text: str, name: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """One job, a list of jobs, or NVIDIA's `samples`: name -> job, with what all share beside it."""
    try:
        whole = json.loads(text)
    except ValueError as error:
        problems.append(f"{name}: this file is not JSON ({error}).")
        return
    if isinstance(whole, dict) and isinstance(samples := whole.get("samples"), dict):
        shared = {key: value for key, value in whole.items() if key != "samples"}
        for sample, values in samples.items():
            yield f"{name}, {sample}", {**shared, "name": sample, **values} if isinstance(values, dict) else values
    elif isinstance(whole, list):
        yield from ((f"{name}, job {number}", values) for number, values in enumerate(whole, start=1))
    else:
        yield name, whole


def _of_csv(text: str, name: str, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv.DictReader(text.splitlines(keepends=True))
    for row in rows:
        place = f"{name}:{rows.line_num}"
        if None in row or None in row.values():
            problems.append(f"{place}: this row has another number of cells than the header: look for stray commas.")
            continue
        yield place, {key.strip(): value_of(key.strip(), value) for key, value in row.items() if value.strip()}


def value_of(key: str, text: str) -> Any:
    """Return the number, true or false that a field wants, where `text` is one."""
    kind = str(OF_A_REQUEST.get(NAMES_OF_NVIDIA.get(key, key), KINDS.get(key, "str")))
    if "bool" in kind and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    for number in (int, float) if "int" in kind or "float" in kind else ():
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _jobs_of(values: dict[str, Any], place: str, folder: Place) -> list[Job]:
    """One job, or one for each of its seeds."""
    _check_names(values)
    values = {NAMES_OF_NVIDIA.get(key, key): value for key, value in values.items() if value is not None}
    prompt, size = _prompt_of(values, folder), _size_of(values)
    asked = {**{key: value for key, value in values.items() if key in OF_A_REQUEST}, **prompt, **size}
    if asked.get("guidance_scale") == 0:  # NVIDIA's for a pass without guidance
        asked["guidance_scale"] = 1
    new_frames, overlap = _extension_of(values, asked)
    for key, value in asked.items():
        check_field(GenerationRequest, key, value)
    name = _name_of(values, place)
    inference_type, input_path = _start_of(values, folder)
    seeds = _seeds_of(values, name)
    names = [f"{name}_{seed}" for seed in seeds] if "seeds" in values else [name]
    return [
        Job(each, GenerationRequest(**{**asked, "seed": seed}), inference_type, input_path, new_frames, overlap, place)
        for each, seed in zip(names, seeds, strict=True)
    ]


def _check_names(values: Mapping[str, Any]) -> None:
    known = [*OF_A_JOB, *OF_A_REQUEST]
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(sorted(known))}."
            raise InvalidRequestError(f"{_shown(key)} is not a field of a job: {hint}")
    for ours in NAMES_OF_NVIDIA.items():
        if all(key in values for key in ours):
            raise InvalidRequestError(f"{ours[0]} and {ours[1]} are the same field: give one of the two.")


def _prompt_of(values: Mapping[str, Any], folder: Place) -> dict[str, str]:
    if "prompt_path" not in values:
        return {} if "prompt" in values else _missing("prompt")
    if "prompt" in values:
        raise InvalidRequestError("prompt and prompt_path are both given: give one of the two.")
    path = _path_of(values, "prompt_path", folder)
    try:
        return {"prompt": read(path).decode("utf-8-sig").strip()}
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"prompt_path is {values['prompt_path']!r}, which is not text in UTF-8.") from error


def _missing(field: str) -> Any:
    raise InvalidRequestError(f"{field} is missing.")


def _size_of(values: Mapping[str, Any]) -> dict[str, int]:
    """NVIDIA's resolution, "height,width"; "none" stands for the model's own."""
    resolution = values.get("resolution", "none")
    if resolution == "none":
        return {}
    match = re.fullmatch(r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", str(resolution))
    if not match:
        raise InvalidRequestError(f'resolution is {_shown(resolution)}, but must be "height,width", as "704,1280".')
    return {"height": int(match[1]), "width": int(match[2])}


def _extension_of(values: Mapping[str, Any], asked: dict[str, Any]) -> tuple[int, int]:
    """Return `new_frames` and `overlap` of a long video, whose `num_frames` in `asked` becomes that of one segment."""
    if not values.get(LONG, False):
        return 0, 1
    frames, chunk, overlap = (
        asked.get("num_frames", CHUNK_FRAMES),
        values.get(CHUNK, CHUNK_FRAMES),
        values.get(OVERLAP, 1),
    )
    check_range("num_frames", frames, Range(NUM_FRAMES.minimum, NUM_FRAMES.maximum + NEW_FRAMES.maximum))
    check_range(CHUNK, chunk, NUM_FRAMES)
    if overlap not in OVERLAPS:
        raise InvalidRequestError(f"{OVERLAP} is {_shown(overlap)}, but must be 5 or 1.")
    asked["num_frames"] = min(frames, chunk)
    if frames > chunk:
        check_range("the number of frames after the first segment", frames - chunk, NEW_FRAMES)
    return max(0, frames - chunk), overlap


def _name_of(values: Mapping[str, Any], place: str) -> str:
    """The job's name, or one of its place in the file."""
    name = values.get("name", re.sub(r"\W+", "_", place))
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequestError(f"name must be text, got {_shown(name)}.")
    for part in name.split("/"):
        if not part or part.startswith(".") or part.endswith((".", " ")) or RESERVED.fullmatch(part):
            raise InvalidRequestError(f"name is {name!r}, but {part!r} cannot be the name of a file or folder.")
        if len(part.encode()) > MAX_NAME_BYTES:
            raise InvalidRequestError(f"name has {len(part.encode())} bytes, but must have at most {MAX_NAME_BYTES}.")
    if found := FORBIDDEN.search(name):
        raise InvalidRequestError(f"name is {name!r}, but {found[0]!r} cannot be in the name of a file.")
    return name


def _start_of(values: Mapping[str, Any], folder: Place) -> tuple[str, Place | None]:
    """The inference type and its file. Without a type the file's suffix tells."""
    kind = values.get("inference_type")
    if kind is not None and kind not in INFERENCE_TYPES:
        raise InvalidRequestError(f"inference_type is {_shown(kind)}, but must be one of {', '.join(INFERENCE_TYPES)}.")
    if kind == TEXT or (kind is None and "input_path" not in values):
        return TEXT, None
    if "input_path" not in values:
        raise InvalidRequestError(f"inference_type is {kind!r}, which needs input_path, the file to start from.")
    path = _path_of(values, "input_path", folder)
    return kind or (IMAGE if str(path).lower().endswith(IMAGES) else VIDEO), path


def _path_of(values: Mapping[str, Any], field: str, folder: Place) -> Place:
    value = values[field]
    if not isinstance(value, str):
        raise InvalidRequestError(f"{field} must be text, got {_shown(value)}.")
    path = beside(folder, value)
    if not is_file(path):
        raise InvalidRequestError(f"{field} is {value!r}, but there is no file {path}.")
    return path


def _seeds_of(values: Mapping[str, Any], name: str) -> list[int]:
    """`seeds` as a list, or as many from `seed` on; else `seed`, or one of the name."""
    seeds, seed = values.get("seeds"), values.get("seed")
    if seeds is None:
        return [zlib.crc32(name.encode()) & SEED.maximum if seed is None else seed]
    if isinstance(seeds, list):
        chosen = seeds
    elif isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= MAX_SEEDS:
        chosen = list(range(seed or 0, (seed or 0) + seeds))
    else:
        raise InvalidRequestError(f"seeds is {_shown(seeds)}, but must be a list or a number from 1 to {MAX_SEEDS}.")
    for each in chosen:
        check_range("seed", each, replace(SEED, optional=False))
    if not chosen or len(set(chosen)) < len(chosen):
        raise InvalidRequestError(f"seeds is {_shown(seeds)}, but must have at least one seed, each once.")
    return chosen


def _same_names(jobs: Iterable[Job]) -> Iterator[str]:
    places: dict[str, str] = {}
    for job in jobs:
        key = job.name.casefold()  # one file on Windows and macOS
        if key in places:
            yield f"{job.place}: the name {job.name!r} is already that of {places[key]}: give each job its own."
        places.setdefault(key, job.place)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def shard_of(jobs: list[Job], shard: str) -> list[Job]:
    """Return the jobs of "i/n", counted from 0: every n-th one from i on. Raises `InvalidRequestError`."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    if not match or int(match[1]) >= int(match[2]):
        raise InvalidRequestError(f"--shard is {shard!r}, but must be i/n with i from 0 to n - 1, as 0/4.")
    return jobs[int(match[1]) :: int(match[2])]
