"""torch's converter without its tolerance for constants that are almost nothing."""

from __future__ import annotations

from onnxscript.rewriter import _pattern_ir
from onnxscript.rewriter.rules.common import _no_op


def take_constants_exactly() -> None:
    """Have ``x + c`` dropped from graphs only where ``c`` is zero, and ``x * c`` where it is one.

    onnxscript's rules take 1e-8 for zero. That is the epsilon of some models' norms, without which
    a vector of zeros, such as a padding token's, becomes NaN.
    """
    for rule in _no_op.rules:
        for node in rule._target_pattern:  # no public way
            for value in node.inputs:
                if isinstance(value, _pattern_ir.Constant):
                    value._rel_tol = value._abs_tol = 0.0
