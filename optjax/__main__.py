"""`python -m optjax`: the command line."""

from optjax._cli.main import command

command()
