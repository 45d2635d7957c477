from typing import Any

from comfy_api.latest import io

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
from .sockets import CATEGORY, CosmosModel


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
                checkpoint_input(),
                io.Boolean.Input(
                    "guardrail",
                    default=False,
                    advanced=True,
                    tooltip="Checks the prompt and blurs faces with NVIDIA's guardrail. Needs the package "
                    "cosmos-guardrail, which downloads its models on first use.",
                ),
                *single_file_inputs(),
                io.Boolean.Input(
                    "keep_prompts",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Keeps the embeddings of prompts in ComfyUI's user folder, 1 MB each and 512 MB at most. A "
                    "prompt that you used before then needs no text encoder. The text itself is not kept.",
                ),
                variant_input(),
                projection_input(),
            ],
            outputs=[CosmosModel.Output("model", tooltip="The checkpoint, for Generate Locally.")],
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
        guardrail: bool,
        transformer: str,
        vae: str,
        text_encoder: str,
        keep_prompts: bool = True,
        variant: str = AUTO,
        projection_from: str = AUTO,
    ) -> io.NodeOutput:
        from .host import preload
        from .host.observers import NodeObserver

        observer = NodeObserver(cls.hidden.unique_id)
        if not preload.is_imported():
            observer.progress("Importing diffusers and transformers", 0, 1)
        preload.import_local()
        from ..pipeline.local.guardrail import import_guardrail
        from ..pipeline.local.load import checkpoint as loading
        from .host import canary
        from .host.memory import HostedModel, text_weight_dtype, vae_weight_dtype, weight_dtype
        from .host.output import prompt_folder, result_on_node

        if guardrail:
            import_guardrail()
        found = canary.check_host()
        options: Any = {"dtype": weight_dtype(), "text_dtype": text_weight_dtype(), "vae_dtype": vae_weight_dtype()}
        options |= {"variant": variant_of(variant), "ways": found.ways, "observer": observer}
        rest = None
        if checkpoint == SINGLE_FILES:
            file, vae_file, text, rest = single_files(transformer, vae, text_encoder, projection_from)
            model = loading.load_single_files(file, vae_file, text, rest=rest, **options)
        else:
            model = loading.load_pipeline_folder(folder_of(checkpoint), **options)
        lines = [*lines_on_loaded(model.name, model.variant, rest), *model.notes, *found.lines]
        hosted = HostedModel(model, guardrail, prompt_folder() if keep_prompts else None, found.host)
        return io.NodeOutput(hosted, ui=result_on_node(*lines))
