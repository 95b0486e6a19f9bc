"""Views of a photograph: what is where, and that the mask says so."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cictl.data.draws import randomness
from cictl.data.pixels import to_training_pixels
from cictl.data.views import mirrored, rescaled, whole

R, F = 96, 8
WHITE = Image.new("RGB", (120, 100), "white")


def views(image: Image.Image = WHITE, count: int = 200):
    return [rescaled(image, R, F, randomness(0, "view", index)) for index in range(count)]


def test_mirrored_twice_is_the_same():
    pixels = np.random.default_rng(0).random((3, 5, 7), np.float32)
    assert np.array_equal(mirrored(mirrored(pixels)), pixels)
    assert np.array_equal(mirrored(pixels)[:, :, 0], pixels[:, :, -1])


def test_the_whole_is_what_training_sees_without_views():
    view = whole(WHITE, R, F)
    assert np.array_equal(view.pixels, to_training_pixels(WHITE, R))
    assert view.mask.shape == (R // F, R // F) and view.mask.all() and view.prefix == ""


def test_sizes_are_those_of_custom_diffusion_and_the_prefix_says_which():
    near, sizes = 0, []
    for view in views():
        side = int((view.pixels[0] == 1).any(axis=1).sum())
        if view.prefix in ("zoomed in ", "close up "):
            near += 1
            assert side == R and view.mask.all()
        else:
            sizes.append(side)
            assert side == int((view.pixels[0] == 1).any(axis=0).sum())
            assert (view.prefix in ("a far away ", "very small ")) == (side < 0.6 * R)
    assert 0.2 < near / 200 < 0.5
    assert min(sizes) >= R // 3 and max(sizes) <= R
    assert min(sizes) < R // 2 and max(sizes) > 0.9 * R
    assert {view.prefix for view in views()} == {"a far away ", "very small ", "zoomed in ", "close up ", ""}


def test_the_mask_is_where_the_photograph_fills_the_latent_position():
    for view in views(count=60):
        if view.mask.all():
            continue
        filled = (view.pixels[0] == 1).reshape(R // F, F, R // F, F).all(axis=(1, 3))
        assert view.mask.any() and not (view.mask.astype(bool) & ~filled).any()
        touched = np.pad((view.pixels[0] == 1).reshape(R // F, F, R // F, F).any(axis=(1, 3)), 1)
        for row, column in np.argwhere(view.mask):  # and so are the positions around it, at least in part
            assert touched[row : row + 3, column : column + 3].all()
        assert view.mask.sum() >= filled.sum() * 0.2


def test_what_is_seen_is_a_square_of_any_size_and_at_any_place(monkeypatch):
    """Sizes as the public code of Custom Diffusion has them, for R = 24: 8 to 24 of each, and 28 to 32."""
    image = Image.fromarray(np.random.default_rng(0).integers(1, 255, (40, 40, 3), np.uint8))
    squares: list[np.ndarray] = []
    monkeypatch.setattr(
        "cictl.data.views.to_training_pixels", lambda *given: squares.append(to_training_pixels(*given)) or squares[-1]
    )
    drawn = [rescaled(image, 24, F, randomness(0, index)) for index in range(400)]
    assert {square.shape[1] for square in squares} == {*range(8, 25), *range(28, 33)}
    assert 0.6 < sum(square.shape[1] <= 24 for square in squares) / 400 < 0.72
    seen = {True: set(), False: set()}
    for view, square in zip(drawn, squares, strict=True):
        room = square.shape[1] - 24
        smaller = np.zeros((3, 24, 24), np.float32)
        for top, left in np.ndindex(abs(room) + 1, abs(room) + 1):
            if room > 0:
                found = square[:, top : top + 24, left : left + 24]
            else:
                found = smaller.copy()  # grey
                found[:, top : top + 24 + room, left : left + 24 + room] = square
            if np.array_equal(view.pixels, found):
                seen[room > 0].add((top, left, abs(room)))
                break
        else:
            raise AssertionError("the picture shows something else")
    for places in seen.values():
        assert any(top == room > 0 for top, _, room in places) and any(left == room > 0 for _, left, room in places)
        assert any(top > left for top, left, _ in places) and any(top < left for top, left, _ in places)


def test_a_mask_is_never_empty_in_the_smallest_pictures():
    for index in range(100):
        assert rescaled(WHITE, 64, 8, randomness(0, index)).mask.any()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_same_generator_gives_the_same_view(index):
    one, other = (rescaled(WHITE, R, F, randomness(3, index)) for _ in range(2))
    assert np.array_equal(one.pixels, other.pixels) and np.array_equal(one.mask, other.mask) and one.prefix == other.prefix
