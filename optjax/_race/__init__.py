"""The race: every optimizer on one task, over learning rates and seeds."""
