"""Images and text from the user's own disk, checked and as plain NumPy arrays."""
