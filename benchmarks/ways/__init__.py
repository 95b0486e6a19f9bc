"""Ways in which a GPU can compute a step or a picture, timed in turns with the default."""
