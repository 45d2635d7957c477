"""The names of ComfyUI's networks that MODEL, CLIP and VAE use. Only this file imports them.

If ComfyUI has no such name, `import_native` raises an error with the name and a tested release.
"""

from comfy.ldm.cosmos.predict2 import Attention as Attention  # its layers, which training needs in another way
from comfy.ldm.cosmos.predict2 import MiniTrainDIT as MiniTrainDIT  # the transformer's network, for MODEL
from comfy.ldm.modules.attention import (
    optimized_attention_for_device as optimized_attention_for_device,
)  # the writer's sight
from comfy.ldm.wan.vae import WanVAE as WanVAE  # the VAE's network, for VAE
from comfy.model_base import CosmosPredict2 as CosmosPredict2  # what MODEL asks the network, and with what
from comfy.model_sampling import CONST as CONST  # noise that MODEL can do with, as nodes change it
from comfy.model_sampling import COSMOS_RFLOW as COSMOS_RFLOW  # MODEL's noise and sigmas
from comfy.model_sampling import ModelSamplingContinuousV as ModelSamplingContinuousV  # noise that MODEL can do with
from comfy.model_sampling import ModelSamplingCosmosRFlow as ModelSamplingCosmosRFlow  # MODEL's noise and sigmas
from comfy.ops import mixed_precision_ops as mixed_precision_ops  # CLIP's layers in float8
from comfy.patcher_extension import WrappersMP as WrappersMP  # where MODEL joins in sampling
from comfy.supported_models import CosmosI2VPredict2 as CosmosI2VPredict2  # MODEL's settings
from comfy.supported_models_base import ClipTarget as ClipTarget  # how CLIP is told its text encoder and tokenizer
from comfy.text_encoders.llama import BaseGenerate as BaseGenerate  # how the writer draws a token
from comfy.text_encoders.llama import Llama2_ as Llama2_  # the text encoder's network, for CLIP
from comfy.text_encoders.llama import Qwen25_7BVLI_Config as Qwen25_7BVLI_Config  # what that is made of
from comfy.text_encoders.qwen_vl import Qwen2VLVisionTransformer as Qwen2VLVisionTransformer  # the writer's sight
from comfy.text_encoders.qwen_vl import process_qwen2vl_images as process_qwen2vl_images  # and its patches
from comfy.utils import calculate_parameters as calculate_parameters  # by which ComfyUI chooses types
from comfy.utils import convert_old_quants as convert_old_quants  # files in float8 of older programs
from comfy.utils import detect_layer_quantization as detect_layer_quantization  # whether a file is in float8
