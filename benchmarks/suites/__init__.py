"""Suites of pytest-benchmark: ``python3 dev.py bench NAME`` runs ``test_NAME.py``."""
