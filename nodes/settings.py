from comfy_api.latest import io

from ..pipeline.request import (
    FPS,
    GUIDANCE_SCALE,
    NUM_FRAMES,
    NUM_INFERENCE_STEPS,
    SCHEDULES,
    SEED,
    SamplerSettings,
)
from .sockets import CATEGORY, CosmosSettings, side_inputs

DEFAULTS = SamplerSettings()


class CosmosPredict25SamplerSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25SamplerSettings",
            display_name="Sampler Settings (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Length, size, steps, guidance and seed of the video to make.",
            search_aliases=["cosmos", "nvidia", "steps", "cfg", "seed", "resolution", "frames"],
            inputs=[
                io.Int.Input(
                    "num_frames",
                    default=DEFAULTS.num_frames,
                    min=NUM_FRAMES.minimum,
                    max=NUM_FRAMES.maximum,
                    tooltip=f"Frames in the video, at {FPS} a second: 93 are 5.8 seconds. The model makes 4k+1 frames "
                    "(9, 13, ... 93); other counts cost as much as the next of these and are cut. It was trained on 93 "
                    "and on single pictures: fewer are faster, and farther from what it was trained on.",
                ),
                io.Int.Input(
                    "num_inference_steps",
                    default=DEFAULTS.num_inference_steps,
                    min=NUM_INFERENCE_STEPS.minimum,
                    max=NUM_INFERENCE_STEPS.maximum,
                    tooltip="Denoising steps. Time grows in proportion. NVIDIA's own 35 are 36 here, as its scheduler "
                    "adds one. fal's distilled model has its own.",
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=DEFAULTS.guidance_scale,
                    min=GUIDANCE_SCALE.minimum,
                    max=GUIDANCE_SCALE.maximum,
                    step=0.1,
                    tooltip="How strongly the video follows the prompt and avoids the negative prompt. It is "
                    "counted as NVIDIA does: 7 here is cfg 8 of other samplers. 1 switches it off and halves the time.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=SEED.minimum,
                    max=SEED.maximum,
                    control_after_generate=True,
                    tooltip="The noise to start from. The same seed and settings give the same video.",
                ),
                *side_inputs("; fal makes only that"),
                io.Combo.Input(
                    "schedule",
                    options=list(SCHEDULES),
                    default=DEFAULTS.schedule,
                    optional=True,
                    advanced=True,
                    tooltip="How Generate Locally spreads the steps. standard is NVIDIA's: 70 passes of the model for "
                    "35 steps with guidance. few steps is for 12 to 20: 30 passes at 15, and it changes the video a "
                    "little. distilled is for NVIDIA's distilled checkpoint: 1 to 4 passes, guidance_scale 1; with "
                    "another checkpoint it spoils the video. fal has its own.",
                ),
            ],
            outputs=[CosmosSettings.Output("settings", tooltip="All of the settings, for a Generate or Extend node.")],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        """ComfyUI itself checks the ranges of the widgets' values. It knows no steps, and not what a link brings."""
        from .host.output import result_on_node

        settings = SamplerSettings(**values)
        return io.NodeOutput(settings, ui=result_on_node(*settings.warnings()))
