"""``python -m cictl``."""

from cictl.cli.app import main

main()
