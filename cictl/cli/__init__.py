"""The commands: flags in, a workflow call, an exit code out."""
