"""Networks out of folders by diffusers and transformers, without the libraries' own output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cictl.errors import means_out_of_memory


class UnreadableError(Exception):
    """A library could not read a network; the text says why, on one line."""


def load_pretrained(kind: Any, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """A network of the libraries' class ``kind``, and the names of the weights that its file lacks, which are random then.

    Args:
        folder: that holds its config and its safetensors.
        options: of the class's ``from_pretrained``, such as dtype and subfolder.

    Raises:
        UnreadableError: a file is missing or damaged, or does not fit the config.
        RuntimeError: there is too little memory.
    """
    from transformers import PreTrainedModel

    quiet_libraries()
    _require_no_adapter(folder)
    _require_no_adapter(folder / options.get("subfolder", ""))
    if issubclass(kind, PreTrainedModel):
        # Else the config may name one, also a repository on the hub, whose code the library would fetch and run.
        options["attn_implementation"] = "sdpa" if kind._supports_sdpa else "eager"
    try:
        network, report = kind.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
        )
    except Exception as error:  # a config that anybody may have written can make the libraries raise anything
        if means_out_of_memory(error):
            raise
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnreadableError(first_line.removeprefix("Cannot load  because ").partition(". If you want")[0]) from error
    if other := sorted(report.get("mismatched_keys") or ()):  # where these are ignored, since transformers does not say which
        name, found, expected = other[0]
        raise UnreadableError(f"{name} expected shape {tuple(expected)}, but got {tuple(found)}")
    return network, sorted(name for name in report["missing_keys"] if not name.endswith("position_ids"))  # which are counted


def _require_no_adapter(folder: Path) -> None:
    """Refuse what transformers would put over the weights unasked, where peft is installed, be it pickled."""
    if (folder / "adapter_config.json").exists():
        raise UnreadableError(f"{folder} holds an adapter (adapter_config.json), which is not read: take it out")


def quiet_libraries() -> None:
    """No progress bars and no advice of the libraries' own: what goes wrong comes as an exception."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    for logging in (of_diffusers, of_transformers):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
