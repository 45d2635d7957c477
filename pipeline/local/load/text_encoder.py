"""The config of a text encoder's folder, and the names of other models."""

from pathlib import Path
from typing import Any

from ...errors import WrongCheckpointError
from .find import read_json
from .reading import as_wrong_checkpoint

OTHERS = {
    "qwen3_vl": "Qwen3-VL (Cosmos-Reason2)",
    "qwen2_vl": "Qwen2-VL",
    "qwen2": "Qwen2.5 without vision",
    "qwen3": "Qwen3",
    "t5": "T5 (Cosmos-Predict2)",
    "umt5": "UMT5 (Wan)",
}
"""transformers' model_type -> the model's usual name."""


def read_text_config(folder: Path) -> Any:
    """Return the `Qwen2_5_VLConfig` in a transformers folder. Raises `WrongCheckpointError` for another model."""
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

    with as_wrong_checkpoint(folder):
        values = dict(read_json(folder / "config.json"))
        kind = values.get("model_type")
        if kind != Qwen2_5_VLConfig.model_type:
            raise WrongCheckpointError(
                f"{folder} is {OTHERS.get(str(kind), f'a model of the type {kind!r}')}, not Qwen2.5-VL. Use the text "
                "encoder of the same checkpoint: for the 2B and 14B models Cosmos-Reason1-7B."
            )
        config = Qwen2_5_VLConfig.from_dict(values)
    if not rope_of(config.text_config).get("mrope_section"):
        raise WrongCheckpointError(
            f"{folder / 'config.json'} has no mrope_section, which Qwen2.5-VL needs: it belongs to a Qwen without "
            "vision. Use the config.json of Cosmos-Reason1-7B."
        )
    return config


def rope_of(text_config: Any) -> dict[str, Any]:
    """Return the settings of the rotary embedding, which transformers 4 stores in two places."""
    rope = getattr(text_config, "rope_parameters", None)
    return rope or {**(text_config.rope_scaling or {}), "rope_theta": text_config.rope_theta}
