"""Imported before anything of ComfyUI's, it makes that importable, for the CPU."""

import sys

from cosmos_predict25.scripts import environment

sys.path.append(str(environment.source_folder(environment.NEWEST)))
from comfy.cli_args import args

args.cpu = True
