"""fmrt and its peers, each in an environment of its own: see ``python -m benchmarks.peers``."""
