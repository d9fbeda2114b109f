"""Programs that measure one thing each: ``python -m benchmarks.scripts.NAME``."""
