"""The networks: Stable Diffusion 1.x and its CLIP, new tokens, and added attention. Loads nothing but safetensors."""
