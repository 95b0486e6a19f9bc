"""Silence for diffusers and transformers."""

from __future__ import annotations


def quiet_libraries() -> None:
    """No progress bars and no advice of the libraries' own: what goes wrong comes as an exception."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    for logging in (of_diffusers, of_transformers):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
