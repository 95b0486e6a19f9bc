"""``S*`` and ``A*`` in prompts, and what a concept may be called: what counts as one. Imports nothing of ours."""

from __future__ import annotations

import re

CONCEPT = "S*"
AUXILIARY = "A*"

# A token, a file name on every system, and text in programs that are pasted: so nothing that means anything to any of them.
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")

# Not inside a word, so that "cats*" is left alone; punctuation may touch them.
CONCEPT_PATTERN = re.compile(r"(?<![\w*])S\*(?![\w*])")
AUXILIARY_PATTERN = re.compile(r"(?<![\w*])A\*(?![\w*])")
