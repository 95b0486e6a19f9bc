"""The paper's Table 1: its methods on DreamBench's subjects, drawn and measured alike."""
