"""One module per command that does work."""
