"""A library that does not load is not told of as a bug of cictl, and is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cictl.cli.libraries import library_not_loaded


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(module: str) -> Exception:
    with pytest.raises(Exception) as caught:
        importlib.import_module(module)
    return caught.value


def test_who_asked_and_what_it_asked_for_are_named_with_their_versions(packages: Path):
    for name, source in {
        "wrapping_one": "try: import asking_one\nexcept ImportError as error: raise RuntimeError from error\n",
        "asking_one": "from given_one import gone\n",
        "given_one": "",
    }.items():
        (packages / f"{name}.py").write_text(source)
    installed = packages / "given_one-1.2.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: given-one\nVersion: 1.2\n")
    (installed / "top_level.txt").write_text("given_one\n")
    problem = library_not_loaded(failure("wrapping_one"))
    assert problem is not None and (problem.slug, problem.exit_code) == ("library-not-loaded", 1)
    assert problem.message.startswith("asking_one with given-one 1.2 cannot be loaded: cannot import name 'gone' ")
    assert f"{sys.executable} -m pip install --upgrade asking_one given-one\n" in problem.hint


def test_a_library_that_cictl_asks_for_and_that_is_not_there_is_named_alone():
    with pytest.raises(ImportError) as caught:
        exec("import gone_library", {"__name__": "cictl.data.pixels"})
    problem = library_not_loaded(caught.value)
    assert problem is not None and problem.message == "gone_library cannot be loaded: No module named 'gone_library'"
    assert problem.hint.splitlines()[0].endswith("-m pip install --upgrade gone_library")


@pytest.mark.parametrize("error", [ImportError("x", name="cictl.gone"), ValueError("x"), ImportError("x")])
def test_everything_else_is_not(error: Exception):
    assert library_not_loaded(error) is None
