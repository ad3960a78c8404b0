"""`python -m kontrast`."""

import sys

from kontrast.cli import main

sys.exit(main())
