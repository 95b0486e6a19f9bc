"""What each optimisation of the engine gains, on Stable Diffusion 1.5's sizes with random weights, on a CPU."""
