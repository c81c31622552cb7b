"""`python -m optjax`: the command line."""

from optjax.cli import command

command()
