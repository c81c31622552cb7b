"""Spaces of hyper-parameters, and the configurations drawn from them."""
