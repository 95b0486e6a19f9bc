"""What the training reads: the photographs, the prompts, and the draws of noise. Nothing here trains."""
