"""One pass over memory for a whole optimizer step on the CPU."""
