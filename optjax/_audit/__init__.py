"""Ask an optimizer which of its numbers move the step, and what is wrong where none."""
