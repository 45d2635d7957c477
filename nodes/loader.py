import sys
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..pipeline.errors import CheckpointNotFoundError, InvalidRequestError, MissingDependencyError
from ..pipeline.local.load.find import DEMO_FOLDER, files_below, find_checkpoints, find_text_encoders, nothing_found
from .sockets import CATEGORY, CosmosModel

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
AUTO = "auto"
SINGLE_FILES = "single files"
NONE = "none"


class CosmosPredict25Loader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Loader",
            display_name="Model Loader (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Loads a Cosmos-Predict2.5 checkpoint from ComfyUI's model folders. Downloads nothing.",
            search_aliases=["cosmos", "nvidia", "load cosmos", "checkpoint", "diffusers", "text to video"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=[AUTO, *find_checkpoints(_roots("diffusers")), SINGLE_FILES],
                    default=AUTO,
                    tooltip="A folder in diffusers layout below models/diffusers. 'auto' takes the largest one there, "
                    "or the demo that comes with the pack where there is none; 'single files' takes the three files "
                    "chosen in the advanced inputs.",
                ),
                io.Boolean.Input(
                    "guardrail",
                    default=False,
                    advanced=True,
                    tooltip="Check the prompt and blur faces with NVIDIA's guardrail. Needs the package "
                    "cosmos-guardrail, which downloads its own models when it is first used.",
                ),
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
                    options=[NONE, *find_text_encoders(_roots("text_encoders"))],
                    default=NONE,
                    advanced=True,
                    tooltip="For 'single files': a folder below models/text_encoders with Cosmos-Reason1-7B (or the "
                    "text encoder that the transformer was trained with) and its tokenizer.",
                ),
                io.Boolean.Input(
                    "keep_prompts",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Keep what the text encoder makes of a prompt in ComfyUI's user folder, 1 MB each and "
                    "512 MB at most, so that a known prompt needs no text encoder. The text itself is not kept.",
                ),
            ],
            outputs=[CosmosModel.Output("model", tooltip="The checkpoint, for Generate Locally.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool:
        """`execute` says which ones there are, where ComfyUI would only say that a checkpoint is not in its list."""
        return True

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, transformer: str, vae: str, text_encoder: str, **_):
        """Load again when a file on disk has changed. None stands for a linked input, whose changes ComfyUI sees."""
        chosen = (transformer, vae, text_encoder) if checkpoint == SINGLE_FILES else (checkpoint,)
        if None in chosen:
            return chosen
        places = _single_files(*chosen) if checkpoint == SINGLE_FILES else (_folder_of(checkpoint),)
        files = [file for place in places for file in (files_below(place) if place.is_dir() else [place])]
        return [(str(file), file.stat().st_mtime_ns) for file in files]

    @classmethod
    def execute(
        cls,
        checkpoint: str,
        guardrail: bool,
        transformer: str,
        vae: str,
        text_encoder: str,
        keep_prompts: bool = True,
    ) -> io.NodeOutput:
        try:
            from ..pipeline.local.guardrail import import_guardrail
            from ..pipeline.local.load import checkpoint as loading
            from .host.memory import HostedModel, weight_dtype
            from .host.output import prompt_folder, result_on_node
        except ImportError as error:
            raise MissingDependencyError(
                f"Local generation cannot start: {error}. Install what it needs into ComfyUI's Python with: "
                f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
            ) from error
        if guardrail:
            import_guardrail()
        if checkpoint == SINGLE_FILES:
            files = _single_files(transformer, vae, text_encoder)
            model = loading.load_single_files(*files, dtype=weight_dtype())
        else:
            model = loading.load_pipeline_folder(_folder_of(checkpoint), weight_dtype())
        lines = [f"Loaded {model.name}."]
        if model.name == DEMO_FOLDER.name:
            lines.append("Demo: knows only coloured shapes.")
        hosted = HostedModel(model, guardrail, prompt_folder() if keep_prompts else None)
        return io.NodeOutput(hosted, ui=result_on_node(*lines))


def _roots(kind: str) -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]


def _folder_of(checkpoint: str) -> Path:
    roots = _roots("diffusers")
    found = find_checkpoints(roots)
    if not found:
        raise nothing_found(roots)
    if checkpoint == AUTO:
        return next(iter(found.values()))
    if checkpoint not in found:
        raise CheckpointNotFoundError(
            f"The checkpoint {checkpoint!r} is not in {' or '.join(map(str, roots))}. Found there: {', '.join(found)}. "
            f"Choose one of these, or '{AUTO}'."
        )
    return found[checkpoint]


def _single_files(transformer: str, vae: str, text_encoder: str) -> tuple[Path, Path, Path]:
    chosen = {"transformer": transformer, "vae": vae, "text_encoder": text_encoder}
    for name, value in chosen.items():
        if value == NONE:
            raise InvalidRequestError(
                f"checkpoint is '{SINGLE_FILES}', but {name} is '{NONE}'. Choose one of the files listed there, or "
                f"another checkpoint."
            )
    text_encoders = find_text_encoders(_roots("text_encoders"))
    if text_encoder not in text_encoders:
        raise CheckpointNotFoundError(
            f"The text encoder {text_encoder!r} is not in {' or '.join(map(str, _roots('text_encoders')))}. "
            f"Found there: {', '.join(text_encoders) or 'none'}."
        )
    return (
        Path(folder_paths.get_full_path_or_raise("diffusion_models", transformer)),
        Path(folder_paths.get_full_path_or_raise("vae", vae)),
        text_encoders[text_encoder],
    )
