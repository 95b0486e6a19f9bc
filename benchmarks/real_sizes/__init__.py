"""The size of the real thing: Stable Diffusion 1.5 and CLIP ViT-L/14 with random weights, through every command."""
