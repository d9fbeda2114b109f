"""``python -m benchmarks.peers ENVIRONMENTS``: run the suite, then write its table and plot."""

import sys

from benchmarks.peers import report, suite

suite.main()
sys.exit(report.main())
