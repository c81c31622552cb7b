"""A sweep on disk: files, digests, and whose directory it is."""
