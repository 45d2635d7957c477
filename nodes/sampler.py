from comfy_api.latest import io

from ..pipeline.request import SCHEDULES, STANDARD
from .host.requirements import import_requirements
from .sockets import CATEGORY


class CosmosPredict25Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Sampler",
            display_name="UniPC Sampler (Cosmos Predict2.5)",
            category=CATEGORY,
            description="The sampler of Generate Locally, for Sampler Custom and Sampler Custom Advanced. Use it with "
            "the scheduler karras and cfg = guidance_scale + 1: 8 where NVIDIA says 7.",
            search_aliases=["cosmos", "nvidia", "unipc", "uni_pc", "scheduler", "karras", "cfg", "ksampler select"],
            inputs=[
                io.Combo.Input(
                    "schedule",
                    options=list(SCHEDULES),
                    default=STANDARD,
                    optional=True,
                    advanced=True,
                    tooltip="standard uses the scheduler's sigmas: choose karras, or simple for the 14B and the "
                    "pre-trained 2B model. The others take only the number of steps from the scheduler. few steps is "
                    "for 12 to 20 steps and changes the video a little. distilled is for NVIDIA's distilled LoRA or "
                    "checkpoint, and distilled (ODE) for the DFD checkpoint, with 1 to 4 steps and cfg 1. They ruin "
                    "the video with any other checkpoint.",
                )
            ],
            outputs=[
                io.Sampler.Output(
                    "sampler",
                    tooltip="With cfg = guidance_scale + 1 and the scheduler karras, it gives the same video as "
                    "Generate Locally. At 35 steps KSampler's uni_pc_bh2 and deis come close; at 10 they do not.",
                )
            ],
        )

    @classmethod
    def execute(cls, schedule: str = STANDARD) -> io.NodeOutput:
        with import_requirements():
            from .native.sampler import sampler
        return io.NodeOutput(sampler(schedule))
