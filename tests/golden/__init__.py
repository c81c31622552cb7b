"""Trajectories of other libraries' optimizers, committed, and how to remake them."""
