"""How anything is trained, checkpointed and sampled. Knows no method by name."""
