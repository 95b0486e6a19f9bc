"""A procedural world: pictures with captions and a ground truth, each a function of a seed. Imports no torch."""
