"""Data sources that ship with the core, one implementation a file."""
