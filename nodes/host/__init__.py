"""Adapts ComfyUI to the pipeline's protocols: one file for each thing that a node needs of it."""
