"""Exit statuses of the program, see docs/command-line.md."""

DONE = 0
FAILED = 1
USAGE = 2
# What was asked for is there in part; the error says what is missing.
PARTLY = 3
INTERRUPTED = 130
