"""Several programs timed in turns, each in a process of its own that waits between its blocks of work."""
