"""The loaders' inputs that choose a checkpoint, and the files they stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..pipeline.errors import CheckpointNotFoundError, InvalidRequestError
from ..pipeline.local.load.find import (
    DEMO,
    DEMO_FOLDER,
    files_below,
    find_checkpoints,
    find_text_encoders,
    how_to_download,
    nothing_found,
    shards_of,
    why_not_found,
)
from ..pipeline.local.variant import VARIANTS, Variant
from ..pipeline.request import MAX_DISTILLED_STEPS

AUTO = "auto"
SINGLE_FILES = "single files"
NONE = "none"


@dataclass(frozen=True)
class SingleFile:
    """A part of the model in its own file. `folder`: ComfyUI's name for its folder."""

    folder: str
    what: str


FILES = {
    "transformer": SingleFile(
        "diffusion_models", "NVIDIA's file with a name ending in _ema_bf16.pt, or a .safetensors file,"
    ),
    "vae": SingleFile("vae", "wan_2.1_vae.safetensors"),
    "text_encoder": SingleFile("text_encoders", "a folder with all of nvidia/Cosmos-Reason1-7B"),
}


def checkpoint_input() -> io.Combo.Input:
    return io.Combo.Input(
        "checkpoint",
        options=[AUTO, *find_checkpoints(_roots("diffusers")), SINGLE_FILES],
        default=AUTO,
        tooltip="A folder in diffusers layout in models/diffusers. 'auto' takes the largest one there and refuses to "
        "run if there is none. 'Demo' is a tiny model that comes with the pack. 'single files' takes the three files "
        "chosen in the advanced inputs.",
    )


def single_file_inputs(text_encoder_files: bool = False) -> list[io.Combo.Input]:
    """`text_encoder_files`: whether a text encoder may also be a single file, without a tokenizer."""
    return [
        io.Combo.Input(
            "transformer",
            options=[NONE, *folder_paths.get_filename_list("diffusion_models")],
            default=NONE,
            advanced=True,
            tooltip="For 'single files': the Cosmos-Predict2.5 transformer in models/diffusion_models, "
            "NVIDIA's .pt file or a .safetensors file.",
        ),
        io.Combo.Input(
            "vae",
            options=[NONE, *folder_paths.get_filename_list("vae")],
            default=NONE,
            advanced=True,
            tooltip="For 'single files': the Wan 2.1 VAE in models/vae.",
        ),
        io.Combo.Input(
            "text_encoder",
            options=[
                NONE,
                *find_text_encoders(_roots("text_encoders")),
                *(_single_text_encoders() if text_encoder_files else []),
            ],
            default=NONE,
            advanced=True,
            tooltip="For 'single files': a folder in models/text_encoders with Cosmos-Reason1-7B (or the text "
            "encoder that the transformer was trained with) and its tokenizer"
            + (", or a .safetensors file there." if text_encoder_files else "."),
        ),
    ]


def variant_input() -> io.Combo.Input:
    return io.Combo.Input(
        "variant",
        options=[AUTO, *VARIANTS],
        default=AUTO,
        optional=True,
        tooltip="The NVIDIA training that the checkpoint comes from. Each runs with its own settings. 'auto' "
        "recognises the 14B model by its size and the 2B ones by NVIDIA's names of files and folders. Without such a "
        "name it takes 2B post-trained. The node shows the variant.",
    )


def projection_input() -> io.Combo.Input:
    return io.Combo.Input(
        "projection_from",
        options=[AUTO, *find_checkpoints(_roots("diffusers")), *folder_paths.get_filename_list("diffusion_models")],
        default=AUTO,
        optional=True,
        advanced=True,
        tooltip="For 'single files' and a transformer that ComfyUI's ModelSave wrote, which has no text projection: "
        "the checkpoint that the MODEL was loaded from. 'auto' finds it where only one fits. A folder also gives the "
        "vae and the text encoder, where these are 'none'.",
    )


def variant_of(choice: str) -> Variant | None:
    """Return the variant, or None for 'auto'. Raises `InvalidRequestError` if it is not in the list."""
    if choice != AUTO and choice not in VARIANTS:
        raise InvalidRequestError(f"variant is {choice!r}, but must be one of {', '.join([AUTO, *VARIANTS])}.")
    return VARIANTS.get(choice)


def lines_on_loaded(name: str, variant: Variant, rest: Path | None = None) -> list[str]:
    """Return a loader's lines on its node. `rest`: the source of all that a file lacks."""
    if name == DEMO_FOLDER.name:
        return [f"Loaded {name}.", "Demo: knows only coloured shapes."]
    lines = [f"Loaded {name}.", f"Variant: {variant.name}."]
    if rest:
        lines.append(f"The rest is from {rest.name}.")
    if variant.schedule:
        lines.append(f"It needs the schedule {variant.schedule!r}, 1 to {MAX_DISTILLED_STEPS} steps and no guidance.")
    if variant.takes_one_frame:
        lines.append(f"It makes videos of {variant.num_frames} frames at {variant.fps} fps from a picture.")
    return lines


def files_of(
    checkpoint: str, transformer: str, vae: str, text_encoder: str, projection_from: str = AUTO, **_: Any
) -> list[Any]:
    """Return a value that changes when a file on disk changes. None means a linked input, which ComfyUI tracks."""
    chosen = (transformer, vae, text_encoder, projection_from) if checkpoint == SINGLE_FILES else (checkpoint,)
    if None in chosen:
        return list(chosen)
    places = single_files(*chosen) if checkpoint == SINGLE_FILES else (folder_of(checkpoint),)
    files = [file for place in places if place for file in (files_below(place) if place.is_dir() else shards_of(place))]
    return [(str(file), file.stat().st_mtime_ns) for file in files]


def refusal_of(checkpoint: str | None) -> bool | str:
    """Return the reason why a checkpoint cannot be loaded, or True. None means a linked input."""
    try:
        if checkpoint not in (None, SINGLE_FILES):
            folder_of(checkpoint)
    except CheckpointNotFoundError as error:
        return str(error)
    return True


def folder_of(checkpoint: str) -> Path:
    """Return the folder of a checkpoint; 'auto' is the largest one of the user's, and never the demo.

    Raises `CheckpointNotFoundError` with the reason, or with how to download the model.
    """
    roots = _roots("diffusers")
    found = find_checkpoints(roots)
    if checkpoint in found:
        return found[checkpoint]
    own = [name for name in found if name != DEMO]
    if checkpoint == AUTO and own:
        return found[own[0]]
    reasons = why_not_found(roots)
    if checkpoint == AUTO and reasons:
        raise CheckpointNotFoundError(f"{next(iter(reasons.values()))} Or choose '{DEMO}' here.")
    if checkpoint == AUTO:
        raise nothing_found(roots)
    if checkpoint in reasons:
        raise CheckpointNotFoundError(reasons[checkpoint])
    if own:
        raise CheckpointNotFoundError(
            f"The checkpoint {checkpoint!r} is not in {' or '.join(map(str, roots))}. Choose one of these: "
            f"{', '.join(own)}. Or download one. {how_to_download(roots[0])}"
        )
    raise nothing_found(roots, checkpoint)


def single_files(
    transformer: str, vae: str, text_encoder: str, projection_from: str = AUTO
) -> tuple[Path, Path | None, Path | None, Path | None]:
    """Return transformer, VAE, text encoder and the source of the rest. None means that another one has it."""
    from ..pipeline.local.load.saved import TEXT_ENCODER, VAE, has_part

    if transformer == NONE:
        raise _not_chosen("transformer")
    file = _file("diffusion_models", transformer)
    text_place = None if text_encoder == NONE else _text_encoder(text_encoder)
    rest = _rest(file, text_place, projection_from)
    has_rest = rest is not None and rest.is_dir()
    for name, value, part in (("vae", vae, VAE), ("text_encoder", text_encoder, TEXT_ENCODER)):
        if value == NONE and not has_rest and not has_part(file, part):
            raise _not_chosen(name)
    return file, None if vae == NONE else _file("vae", vae), text_place, rest


def _rest(transformer: Path, text_encoder: Path | None, choice: str) -> Path | None:
    """Return the source of the text projection, or None if the transformer's file has it."""
    from ..pipeline.local.load.saved import find_projection

    known = _projections()
    if choice == AUTO:
        others = {name: place for name, place in known.items() if place != transformer}
        return find_projection(transformer, text_encoder, others)
    if choice not in known:
        raise CheckpointNotFoundError(f"projection_from is {choice!r}, which is not there. Found: {', '.join(known)}.")
    return known[choice]


def _projections() -> dict[str, Path]:
    """Return the possible sources of a text projection: checkpoint folders and transformer files."""
    names = folder_paths.get_filename_list("diffusion_models")
    paths = {name: folder_paths.get_full_path("diffusion_models", name) for name in names}
    return {**find_checkpoints(_roots("diffusers")), **{name: Path(path) for name, path in paths.items() if path}}


def _not_chosen(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"checkpoint is '{SINGLE_FILES}', but {name} is '{NONE}'. Choose a file in the advanced inputs. If it is not "
        f"listed, put {FILES[name].what} into {' or '.join(map(str, _roots(FILES[name].folder)))} and press R."
        f"{_note_on_gguf()}"
    )


def _text_encoder(name: str) -> Path:
    folders = find_text_encoders(_roots("text_encoders"))
    names = [*folders, *_single_text_encoders()]
    if name not in names:
        raise CheckpointNotFoundError(
            f"The text encoder {name!r} is not in {' or '.join(map(str, _roots('text_encoders')))}. "
            f"Found there: {', '.join(names) or 'none'}."
        )
    return folders.get(name) or _file("text_encoders", name)


def _single_text_encoders() -> list[str]:
    """Return the files that are not part of a transformers folder."""
    folders = tuple(f"{name}/" for name in find_text_encoders(_roots("text_encoders")))
    names = [name.replace("\\", "/") for name in folder_paths.get_filename_list("text_encoders")]
    return [name for name in names if name.endswith(".safetensors") and not name.startswith(folders)]


def _note_on_gguf() -> str:
    """Return a sentence on a GGUF file among the transformers, which ComfyUI does not list."""
    found = [file.name for root in _roots("diffusion_models") for file in files_below(root) if file.suffix == ".gguf"]
    return f" {found[0]} is a GGUF file, which cannot be read here: use a .pt or .safetensors file." if found else ""


def _file(kind: str, name: str) -> Path:
    path = folder_paths.get_full_path(kind, name)
    if path is None:
        input_name = next(name for name, file in FILES.items() if file.folder == kind)
        raise CheckpointNotFoundError(
            f"{input_name} is {name!r}, which is not in {' or '.join(map(str, _roots(kind)))}. Put "
            f"{FILES[input_name].what} there and press R, or choose another file in the advanced inputs."
        )
    return Path(path)


def _roots(kind: str) -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]
