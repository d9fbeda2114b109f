"""The process, its memory, files and terminal: what every layer may use."""
