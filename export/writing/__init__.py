"""The bundle's files next to its graphs: configuration, tokenizer, references, card."""
