"""The ground-truth suite: sixteen concepts of the toybox's world, ten prompts each, read by its judge."""
