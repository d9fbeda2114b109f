"""What suites and scripts share: models, texts, turns, and what the machine could do."""
