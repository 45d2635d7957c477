"""The model in ComfyUI's own classes, for MODEL, CLIP, VAE and SAMPLER. It needs no diffusers."""
