"""Pictures, drawn in turns with the diffusers pipeline."""
