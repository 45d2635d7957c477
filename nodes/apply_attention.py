from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..pipeline.errors import InvalidRequestError
from .sockets import CATEGORY, CosmosModel

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from .host.memory import HostedModel

OVERRIDE = "optimized_attention_override"
PATCHES = ("patches", "patches_replace")
"""What else nodes put into the options of a MODEL."""


class CosmosPredict25ApplyAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25ApplyAttention",
            display_name="Apply Attention (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Lets ComfyUI's attention nodes, such as Model Sparse Attention, act on Generate Locally.",
            search_aliases=["cosmos", "nvidia", "sparse attention", "sage attention", "attention override", "speed"],
            inputs=[
                CosmosModel.Input("model", tooltip="From the Model Loader or the LoRA Loader."),
                io.Model.Input(
                    "attention_from",
                    tooltip="A MODEL that went through an attention node. Only its attention is used, not its weights: "
                    "the Checkpoint Loader's demo will do.",
                ),
            ],
            outputs=[CosmosModel.Output("model", tooltip="The model with this attention.")],
        )

    @classmethod
    def execute(cls, model: "HostedModel", attention_from: "ModelPatcher") -> io.NodeOutput:
        from .host.output import result_on_node

        options = attention_from.model_options.get("transformer_options", {})
        if OVERRIDE not in options:
            raise InvalidRequestError(
                "No attention node has changed the MODEL in attention_from: connect one, such as Model Sparse "
                "Attention, between the Checkpoint Loader and this node."
            )
        lines = ["Self-attention is computed by the attention node."]
        if any(options.get(name) for name in PATCHES):
            lines.append("Other patches of the MODEL have no effect here.")
        return io.NodeOutput(model.with_attention(options), ui=result_on_node(*lines))
