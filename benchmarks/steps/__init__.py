"""Training steps, timed in turns with those of the diffusers project's example scripts."""
