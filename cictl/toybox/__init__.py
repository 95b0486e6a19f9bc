"""The toybox: a small latent diffusion model of our own, of Stable Diffusion 1.x's parts, and the world that it knows."""
