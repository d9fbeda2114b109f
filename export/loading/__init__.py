"""A name -> a directory that was looked at, and what a library loads from it, compared with it."""
