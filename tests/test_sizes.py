"""Bytes as people read them."""

import pytest

from cictl.sizes import size_in_words


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (size_in_words(0), "0 B"),
        (size_in_words(5, decimals=1), "5 B"),
        (size_in_words(952_627), "930 KiB"),
        (size_in_words(952_627, decimals=1), "930.3 KiB"),
        (size_in_words(312 * 2**20), "312 MiB"),
        (size_in_words(1000 * 2**20), "1.0 GiB"),
        (size_in_words(100 * 2**30), "100 GiB"),
        (size_in_words(2**50 * 2), "2,048 TiB"),
        (size_in_words(23_306 * 2**20, "MiB"), "23,306 MiB"),
        (size_in_words(2**19 - 1, "MiB"), "0 MiB"),
        (size_in_words(2**19, "MiB", decimals=1), "0.5 MiB"),
        (size_in_words(200 * 2**30, "GiB", decimals=1), "200.0 GiB"),
    ],
)
def test_bytes_are_said_in_one_way(shown, expected):
    assert shown == expected
