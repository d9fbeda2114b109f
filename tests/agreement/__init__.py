"""Whether a graph has the same vectors on processors of other kinds and in WebAssembly."""
