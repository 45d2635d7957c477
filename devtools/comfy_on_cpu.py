"""Imported before anything of ComfyUI's, it makes that importable, for the CPU: the release in TESTED_COMFYUI."""

import os
import sys

from cosmos_predict25.devtools import environment

sys.path.append(str(environment.source_folder(environment.release_of(os.environ.get("TESTED_COMFYUI")))))
from comfy.cli_args import args

args.cpu = True
args.use_pytorch_cross_attention = True  # the same operation as the pipeline's own, so that results can be equal
