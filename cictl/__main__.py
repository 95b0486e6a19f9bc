"""``cictl`` and ``python -m cictl``."""

import os
import sys

from cictl.cli.interrupt import end_on_ctrl_c


def main() -> None:
    """The entry point: exits with the command's code."""
    end_on_ctrl_c()
    _open_what_is_closed()
    from cictl.cli.app import main as run  # takes most of a second

    run()


def _open_what_is_closed() -> None:
    """Let streams that were closed by whoever started this lead nowhere, so that no file takes their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # for as long as the process lives


if __name__ == "__main__":
    main()
