"""The bundle's files beside its graphs: configuration, tokenizer, references, card."""
