"""What the user sees: a live panel, plain lines, or JSON lines made from events; results and errors."""
