"""Pictures of a sweep, and its live display."""
