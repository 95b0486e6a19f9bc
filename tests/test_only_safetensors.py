"""No file that this package reads can run code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cictl

SOURCES = sorted(Path(cictl.__file__).parent.rglob("*.py"))
FORBIDDEN = re.compile(
    r"torch\.(load|save)\b|\bimport pickle|from pickle|\bpickle\.|allow_pickle\s*=\s*True|trust_remote_code|weights_only|"
    r"\bjoblib\b|\bmarshal\b|\bshelve\b|\beval\(|\bexec\(|use_safetensors\s*=\s*False|yaml\.(load|unsafe_load|full_load)\("
)


def harmless(line: str) -> bool:
    return "model.eval()" in line or ".eval()" in line


def test_there_are_sources_to_look_at():
    assert len(SOURCES) > 40


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(SOURCES[0].parent.parent).as_posix())
def test_no_source_unpickles_or_trusts_remote_code(path: Path):
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        assert harmless(line) or not FORBIDDEN.search(line), f"{path.name}:{number}: {line}"


def test_the_search_would_find_them():
    for line in ("torch.load(x)", "import pickle", "np.load(x, allow_pickle=True)", "trust_remote_code=True", "yaml.load(x)"):
        assert FORBIDDEN.search(line)
