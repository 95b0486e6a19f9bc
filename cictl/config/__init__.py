"""ci.yaml: one strict schema, read with line numbers, written with comments.

The only user of pydantic and of YAML. Imports no torch.
"""

from cictl.config.loading import Sources, load_config, parse_overrides
from cictl.config.schema import Config, FinetuneConfig, GenerateConfig, InvertConfig, trajectory
from cictl.config.writing import commented_yaml, initial_config

__all__ = [
    "Config",
    "FinetuneConfig",
    "GenerateConfig",
    "InvertConfig",
    "Sources",
    "commented_yaml",
    "initial_config",
    "load_config",
    "parse_overrides",
    "trajectory",
]
