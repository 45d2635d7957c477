from comfy_api.latest import io

from ..pipeline.local.variant import OTHERS
from .checkpoint_inputs import (
    AUTO,
    SINGLE_FILES,
    checkpoint_input,
    files_of,
    folder_of,
    lines_on_loaded,
    projection_input,
    refusal_of,
    single_file_inputs,
    single_files,
    variant_input,
    variant_of,
)
from .host.requirements import import_native
from .sockets import CATEGORY


class CosmosPredict25CheckpointLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25CheckpointLoader",
            display_name="Checkpoint Loader (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Loads a Cosmos-Predict2.5 checkpoint as ComfyUI's own MODEL, CLIP and VAE. Downloads nothing.",
            search_aliases=["cosmos", "nvidia", "load checkpoint", "model clip vae", "unet loader", "ksampler"],
            inputs=[
                checkpoint_input(),
                *single_file_inputs(text_encoder_files=True),
                io.Boolean.Input(
                    "prompt_writer",
                    default=False,
                    advanced=True,
                    tooltip="Lets Generate Text write prompts with this CLIP, from an idea and a picture. It takes "
                    "2.4 GB more for Cosmos-Reason1-7B.",
                ),
                variant_input(),
                projection_input(),
            ],
            outputs=[
                io.Model.Output("model", tooltip="For KSampler and other nodes with a MODEL input."),
                io.Clip.Output("clip", tooltip="For CLIP Text Encode, and for Generate Text if prompt_writer is on."),
                io.Vae.Output("vae", tooltip="The Wan 2.1 VAE, for VAE Decode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool | str:
        """Refuse before anything runs, with the download, where ComfyUI would only say "not in list"."""
        return refusal_of(checkpoint)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, **files):
        """Load again when a file on disk has changed."""
        return files_of(checkpoint, **files)

    @classmethod
    def execute(
        cls,
        checkpoint: str,
        transformer: str,
        vae: str,
        text_encoder: str,
        prompt_writer: bool,
        variant: str = AUTO,
        projection_from: str = AUTO,
    ) -> io.NodeOutput:
        from ..pipeline.local.load.parts import file_parts, folder_parts
        from .host.observers import NodeObserver
        from .host.output import result_on_node

        observer = NodeObserver(cls.hidden.unique_id)
        with import_native():
            from .native.clip import load_clip
            from .native.model import load_transformer
            from .native.vae import load_vae

        rest = None
        if checkpoint == SINGLE_FILES:
            file, vae_file, text, rest = single_files(transformer, vae, text_encoder, projection_from)
            parts = file_parts(file, vae_file, text, variant_of(variant), rest)
        else:
            parts = folder_parts(folder_of(checkpoint), variant_of(variant))
        observer.progress("Reading the transformer", 0, 3)
        model, projection = load_transformer(parts)
        lines = lines_on_loaded(parts.name, parts.variant, rest)
        if parts.variant is OTHERS:
            lines.append("Its scheduler is simple, not karras.")
        observer.progress("Reading the text encoder", 1, 3)
        clip = load_clip(parts, projection, prompt_writer)
        observer.progress("Reading the VAE", 2, 3)
        return io.NodeOutput(model, clip, load_vae(parts), ui=result_on_node(*lines))
