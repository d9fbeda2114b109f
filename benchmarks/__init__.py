"""Benchmarks against peers; dev.py bench runs them."""
