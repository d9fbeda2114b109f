"""Items to vectors, with the loaded graph of one tower."""
