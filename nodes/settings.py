from comfy_api.latest import io

from ..pipeline.request import (
    DISTILLED_VALUES,
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
SEEDS_OF_NODES = 2**64
"""ComfyUI's own seeds are below it."""


class CosmosPredict25SamplerSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25SamplerSettings",
            display_name="Sampler Settings (Cosmos Predict2.5)",
            category=CATEGORY,
            description="The length, size, steps, guidance and seed of the video.",
            search_aliases=["cosmos", "nvidia", "steps", "cfg", "seed", "resolution", "frames"],
            inputs=[
                io.Int.Input(
                    "num_frames",
                    default=DEFAULTS.num_frames,
                    min=NUM_FRAMES.minimum,
                    max=NUM_FRAMES.maximum,
                    tooltip=f"The number of frames, at {FPS} fps: 93 are 5.8 seconds. The model makes 4k+1 frames (9, "
                    "13, ... 93). Another number takes as long as the next of these, and the extra frames are dropped. "
                    "The model was trained on 93 frames and on single pictures: fewer frames are faster, but differ "
                    "more from the training.",
                ),
                io.Int.Input(
                    "num_inference_steps",
                    default=DEFAULTS.num_inference_steps,
                    min=NUM_INFERENCE_STEPS.minimum,
                    max=NUM_INFERENCE_STEPS.maximum,
                    tooltip="Denoising steps. The time grows in proportion. NVIDIA's 35 steps are 36 here, as its "
                    "scheduler adds one. fal's distilled model has its own number. For 4 steps, choose the schedule "
                    "distilled.",
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=DEFAULTS.guidance_scale,
                    min=GUIDANCE_SCALE.minimum,
                    max=GUIDANCE_SCALE.maximum,
                    step=0.1,
                    tooltip="How closely the video follows the prompt and avoids the negative prompt. It follows "
                    "NVIDIA's convention: 7 here equals cfg 8 in other samplers. 1 switches it off and halves the "
                    "time.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=SEED.minimum,
                    max=SEED.maximum,
                    control_after_generate=True,
                    tooltip="The start noise. The same seed and settings give the same video.",
                ),
                *side_inputs("; fal makes only that"),
                io.Combo.Input(
                    "schedule",
                    options=list(SCHEDULES),
                    default=DEFAULTS.schedule,
                    optional=True,
                    advanced=True,
                    tooltip="The spacing of the steps in Generate Locally. standard is NVIDIA's: 70 passes of the "
                    "model for 35 steps with guidance. few steps is for 12 to 20 steps: 30 passes at 15. It changes "
                    "the video a little. distilled is for NVIDIA's distilled LoRA or checkpoint, and distilled (ODE) "
                    "for the DFD checkpoint: 4 passes. Both need no other change, since 35 steps and guidance_scale 7 "
                    "become 4 and 1. They ruin the video with any other checkpoint. fal has its own.",
                ),
            ],
            outputs=[CosmosSettings.Output("settings", tooltip="All settings, for a Generate or Extend node.")],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        """ComfyUI checks the ranges of the widgets' values, but not their steps, nor values that come from a link."""
        from .host.output import result_on_node

        given = values["seed"]
        if isinstance(given, int) and SEED.maximum < given < SEEDS_OF_NODES:
            values["seed"] = given % (SEED.maximum + 1)
        settings = SamplerSettings(**values)
        lines = settings.warnings()
        if any(getattr(settings, name) != values[name] for name in DISTILLED_VALUES):
            lines.append(f"{settings.num_inference_steps} steps, guidance_scale {settings.guidance_scale:g}.")
        if settings.seed != given:
            lines.append(f"The seed {given} is {settings.seed} here: modulo {SEED.maximum + 1}.")
        return io.NodeOutput(settings, ui=result_on_node(*lines))
