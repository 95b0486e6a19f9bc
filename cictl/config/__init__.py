"""ci.yaml: one strict schema, read with line numbers, written with comments.

The only user of pydantic and of YAML. Imports no torch.
"""

from cictl.config.baselines import CustomDiffusionConfig, DisenBoothConfig, DreamBoothConfig, TextualInversionConfig
from cictl.config.contrastive_inversion import FinetuneConfig, InvertConfig
from cictl.config.fields import AUTO_START, FROM_PHOTOGRAPHS, MemoryMode, Timesteps
from cictl.config.loading import Sources, load_config, parse_overrides, says_nothing
from cictl.config.schema import Config, GenerateConfig, Training, settings_of
from cictl.config.stages import METHODS, NEED_A_NOUN, STAGES, Method, Stage, command_of, group_of
from cictl.config.trajectory import is_read_by, trajectory
from cictl.config.writing import commented_yaml, initial_config

__all__ = [
    "AUTO_START",
    "FROM_PHOTOGRAPHS",
    "METHODS",
    "NEED_A_NOUN",
    "STAGES",
    "Config",
    "CustomDiffusionConfig",
    "DisenBoothConfig",
    "DreamBoothConfig",
    "FinetuneConfig",
    "GenerateConfig",
    "InvertConfig",
    "MemoryMode",
    "Method",
    "Sources",
    "Stage",
    "TextualInversionConfig",
    "Timesteps",
    "Training",
    "command_of",
    "commented_yaml",
    "group_of",
    "initial_config",
    "is_read_by",
    "load_config",
    "parse_overrides",
    "says_nothing",
    "settings_of",
    "trajectory",
]
