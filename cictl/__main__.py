"""``cictl`` and ``python -m cictl``."""

from cictl.cli.interrupt import end_on_ctrl_c


def main() -> None:
    """The entry point: exits with the command's code."""
    end_on_ctrl_c()
    from cictl.cli.app import main as run  # takes most of a second

    run()


if __name__ == "__main__":
    main()
