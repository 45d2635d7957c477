"""Adapters from ComfyUI to the pipeline's protocols, one file per feature."""
