"""Entry point of `python -m modelhaul_cli`."""

import sys

from modelhaul_cli.application import main

sys.exit(main())
