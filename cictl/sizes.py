"""Bytes as people read them. Imports nothing of ours."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_ROUNDED_UP = 999.5  # and not 1024, so that no number in a unit that suits it needs four digits


def size_in_words(count: float, unit: str | None = None, *, decimals: int | None = None) -> str:
    """Bytes such as ``312 MiB`` or ``1.1 GiB``.

    Args:
        unit: that numbers which are to be compared share; None is the one that suits ``count``.
        decimals: None is one from GiB on and below 100, else none. Single bytes have none.
    """
    power = _UNITS.index(unit) if unit else _suiting(count)
    value = count / 1024**power
    if decimals is None:
        decimals = 1 if power >= 3 and value < 100 else 0
    return f"{value:,.{decimals if power else 0}f} {_UNITS[power]}"


def _suiting(count: float) -> int:
    powers = range(len(_UNITS))
    return next((power for power in powers if count / 1024**power < _ROUNDED_UP), powers[-1])
