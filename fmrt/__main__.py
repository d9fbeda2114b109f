"""``python -m fmrt`` is the command line."""

import sys

from fmrt.cli import main

sys.exit(main())
