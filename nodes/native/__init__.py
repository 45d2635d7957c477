"""The model in ComfyUI's own classes: its MODEL, CLIP, VAE and SAMPLER. diffusers is not needed."""
