from comfy_api.latest import io

from ..pipeline.errors import InvalidRequestError
from ..pipeline.request import DEFAULT_NEGATIVE_PROMPT, Prompt
from .sockets import CATEGORY, CosmosPrompt


class CosmosPredict25Prompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Prompt",
            display_name="Prompt (Cosmos Predict2.5)",
            category=CATEGORY,
            description="The description of the video.",
            search_aliases=["cosmos", "nvidia", "text to video", "positive prompt", "negative prompt", "world model"],
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="The scene, the movement, the camera, the light",
                    tooltip="A description of the video. The model was trained on long ones: describe the scene, the "
                    "movement, the camera and the light in a few sentences. It reads about 480 tokens.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default=DEFAULT_NEGATIVE_PROMPT,
                    tooltip="Things to avoid in the video. The default is NVIDIA's own text. It has no effect when "
                    "guidance_scale is 1.",
                ),
            ],
            outputs=[CosmosPrompt.Output("prompt", tooltip="Both texts, for a Generate or Extend node.")],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None, negative_prompt: str | None = None) -> bool | str:
        """Refuse a key here, before ComfyUI keeps the texts in its history. None stands for a linked input."""
        from ..pipeline.fal.key import refuse_own_key_in

        try:
            refuse_own_key_in({"prompt": prompt or "", "negative_prompt": negative_prompt or ""})
        except InvalidRequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, prompt: str, negative_prompt: str) -> io.NodeOutput:
        return io.NodeOutput(Prompt(prompt=prompt, negative_prompt=negative_prompt))
