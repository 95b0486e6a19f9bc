"""How the toybox was trained: one command a component."""
