"""A library that does not load: a fault of what is installed, not of cictl."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from cictl.errors import CictlError
from cictl.files import quoted


def library_not_loaded(error: BaseException) -> CictlError | None:
    """What to say of an ``error`` that an import of a library brought about; None of any other, and of cictl's own imports."""
    failed = next((one for one in _chain(error) if isinstance(one, ImportError)), None)
    if failed is None:
        return None
    importing = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(failed.__traceback__)]
    asking = next((name for name in reversed(importing) if not name.startswith(("importlib", "_frozen"))), "")
    modules = dict.fromkeys(name.partition(".")[0] for name in (asking, failed.name or ""))
    packages = [_package(module) for module in modules if module not in ("", "cictl", "__main__")]
    if not packages or (failed.name or "").partition(".")[0] == "cictl":
        return None
    versions, (said, *_) = " with ".join(map(_with_version, packages)), [*str(failed).strip().splitlines(), ""]
    return CictlError(
        f"{versions} cannot be loaded: {said}",
        f"bring what is installed up to date: {quoted(sys.executable)} -m pip install --upgrade {' '.join(packages)}\n"
        "or install cictl into a virtual environment of its own, where nothing else asks for other versions",
        slug="library-not-loaded",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what brought it about, the first cause first: libraries wrap the errors of an import in others."""
    if earlier := error.__cause__ or error.__context__:
        yield from _chain(earlier)
    yield error


def _package(module: str) -> str:
    """What pip calls the package of ``module``."""
    return packages_distributions().get(module, [module])[0]


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
