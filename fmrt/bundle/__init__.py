"""A bundle on disk: what reads it, checks it, fetches it and publishes it."""
