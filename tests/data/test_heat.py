"""Heat maps over pictures."""

from __future__ import annotations

import numpy as np
import pytest

from cictl.data.heat import overlay

GREY = np.full((40, 60, 3), 128, np.uint8)


def lightness(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float) @ (0.299, 0.587, 0.114)


def test_more_heat_is_lighter_whatever_the_range():
    heat = np.tile(np.linspace(0, 1, 60), (40, 1))
    shown = overlay(GREY, heat)
    assert shown.shape == GREY.shape and shown.dtype == np.uint8
    assert (np.diff(lightness(shown)[0]) >= 0).all() and np.ptp(lightness(shown)[0]) > 120
    assert np.abs(overlay(GREY, heat * 1e-4 + 0.02).astype(int) - shown).max() <= 1


def test_a_small_map_is_enlarged_in_place():
    heat = np.zeros((4, 6))
    heat[0, 5] = 1
    shown = lightness(overlay(GREY, heat))
    assert np.unravel_index(shown.argmax(), shown.shape)[0] < 10 and np.unravel_index(shown.argmax(), shown.shape)[1] >= 50
    assert shown[20:, :30].max() == pytest.approx(shown.min())


def test_a_constant_map_is_dark_all_over():
    assert np.ptp(overlay(GREY, np.full((4, 6), 0.3)), axis=(0, 1)).max() == 0


def test_the_picture_is_seen_below():
    half = GREY.copy()
    half[:, :30] = 0
    shown = lightness(overlay(half, np.full((4, 6), 0.3)))
    assert shown[:, 30:].min() - shown[:, :30].max() > 20
