from comfy_api.latest import io

from ..pipeline.local.variant import OTHERS
from .checkpoint_inputs import (
    AUTO,
    SINGLE_FILES,
    checkpoint_input,
    files_of,
    folder_of,
    lines_on_loaded,
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
            ],
            outputs=[
                io.Model.Output("model", tooltip="For KSampler and other nodes with a MODEL input."),
                io.Clip.Output("clip", tooltip="For CLIP Text Encode, and for Generate Text if prompt_writer is on."),
                io.Vae.Output("vae", tooltip="The Wan 2.1 VAE, for VAE Decode."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool:
        """`execute` says which ones there are, where ComfyUI would only say that a checkpoint is not in its list."""
        return True

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, transformer: str, vae: str, text_encoder: str, **_):
        """Load again when a file on disk has changed."""
        return files_of(checkpoint, transformer, vae, text_encoder)

    @classmethod
    def execute(
        cls,
        checkpoint: str,
        transformer: str,
        vae: str,
        text_encoder: str,
        prompt_writer: bool,
        variant: str = AUTO,
    ) -> io.NodeOutput:
        from ..pipeline.local.load.parts import file_parts, folder_parts
        from .host.output import result_on_node

        with import_native():
            from .native.clip import load_clip
            from .native.model import load_transformer
            from .native.vae import load_vae

        if checkpoint == SINGLE_FILES:
            parts = file_parts(*single_files(transformer, vae, text_encoder), variant_of(variant))
        else:
            parts = folder_parts(folder_of(checkpoint), variant_of(variant))
        model, projection = load_transformer(parts)
        lines = lines_on_loaded(parts.name, parts.variant)
        if parts.variant is OTHERS:
            lines.append("Its scheduler is simple, not karras.")
        clip = load_clip(parts, projection, prompt_writer)
        return io.NodeOutput(model, clip, load_vae(parts), ui=result_on_node(*lines))
