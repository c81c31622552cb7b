"""`python -m optjax`: the command line."""

import sys

from optjax.cli import main

sys.exit(main())
