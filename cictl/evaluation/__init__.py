"""How good pictures are, in numbers: the figures of the paper's Table 1, and the toybox's ground truth."""
