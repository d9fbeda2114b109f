"""Raw items to model inputs, in numpy, as Hugging Face's processors make them."""
