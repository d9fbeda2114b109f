"""Every model type that transformers knows, tiny and random, through the export that users run."""
