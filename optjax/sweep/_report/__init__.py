"""What a sweep says: verdicts with their evidence, and pictures, on one page."""
