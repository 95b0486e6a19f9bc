"""``S*`` and ``A*`` in prompts: what counts as one. Imports nothing of ours."""

from __future__ import annotations

import re

CONCEPT = "S*"
AUXILIARY = "A*"

# Not inside a word, so that "cats*" is left alone; punctuation may touch them.
CONCEPT_PATTERN = re.compile(r"(?<![\w*])S\*(?![\w*])")
AUXILIARY_PATTERN = re.compile(r"(?<![\w*])A\*(?![\w*])")
