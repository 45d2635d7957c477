from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

from ..pipeline.local.load.find import DEMO_LORAS
from ..pipeline.request import DISTILLED
from .sockets import CATEGORY, CosmosModel

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

    from .host.memory import HostedModel

NAMES_SHOWN = 3
FOR_GENERATE = f"set schedule to {DISTILLED!r} in Sampler Settings, which makes 4 steps without guidance."
FOR_MODEL = f"sample it with UniPC Sampler, schedule {DISTILLED!r}, 4 steps and cfg 1."


class CosmosPredict25LoraLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        kind = io.MatchType.Template("model", [CosmosModel, io.Model])  # pyright: ignore[reportArgumentType]
        return io.Schema(
            node_id="CosmosPredict25LoraLoader",
            display_name="LoRA Loader (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Applies a LoRA to a Cosmos-Predict2.5 model.",
            search_aliases=["cosmos", "nvidia", "lora", "load lora", "apply lora", "dora", "peft"],
            inputs=[
                io.MatchType.Input(
                    "model", template=kind, tooltip="From a loader, or from another LoRA Loader to combine them."
                ),
                io.Combo.Input(
                    "lora",
                    options=[*folder_paths.get_filename_list("loras"), *DEMO_LORAS],
                    tooltip="A file in models/loras, as saved by diffusers, PEFT, NVIDIA's trainer, kohya or ComfyUI.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="The LoRA's weight: 1 as it was trained, 0 off, below 0 inverted.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP of the Checkpoint Loader, for the few LoRAs that change the text projection "
                    "(crossattn_proj). The Model Loader's model needs none.",
                ),
            ],
            outputs=[
                io.MatchType.Output(template=kind, display_name="model", tooltip="The model with the LoRA."),
                io.Clip.Output("clip", tooltip="The CLIP with the LoRA, if one is connected."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora: str | None, **_):
        """Run again when the file has changed. None stands for a linked input, whose changes ComfyUI sees."""
        return None if lora is None else (lora, _file_of(lora).stat().st_mtime_ns)

    @classmethod
    def execute(
        cls, model: "HostedModel | ModelPatcher", lora: str, strength: float, clip: "CLIP | None" = None
    ) -> io.NodeOutput:
        from .host.lora import with_lora
        from .host.output import result_on_node

        file = _file_of(lora)
        result, clip, changed, read = with_lora(model, clip, file, strength)
        lines = [f"{file.stem} changes {changed} layers."]
        if read.assumes_alpha:
            lines.append("The file has no alpha: alpha / rank is taken as 1.")
        if read.left_out:
            first = ", ".join(read.left_out[:NAMES_SHOWN])
            lines.append(f"{len(read.left_out)} of its tensors do not fit this model, such as {first}.")
        if any("crossattn_proj" in name for name in read.left_out):
            lines.append("Connect clip too: the LoRA changes the text projection.")
        if read.is_distilled and strength:
            lines.append(f"By its name it is distilled: {FOR_MODEL if hasattr(result, 'clone') else FOR_GENERATE}")
        return io.NodeOutput(result, clip, ui=result_on_node(*lines))


def _file_of(lora: str) -> Path:
    return DEMO_LORAS.get(lora) or Path(folder_paths.get_full_path_or_raise("loras", lora))
