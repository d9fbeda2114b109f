"""ONNX graphs that others made, with their tokenizer, become a bundle: see docs/optimum.md.

``layout`` finds the graphs in a directory, ``graph`` reads and binds one, ``source`` gives what the
model's directory says, ``joining`` puts the model's pooling after a graph, ``checking`` measures
the result; ``text`` and ``media`` run these in order, and ``bundle`` runs the one that fits.
"""
