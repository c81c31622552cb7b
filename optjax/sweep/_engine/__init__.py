"""Lanes, groups and processes: what runs a sweep's trials."""
