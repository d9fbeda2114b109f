"""Other libraries embed with a bundle as it is: each in its own environment, compared with fmrt.

``peers`` lists them, ``environments`` makes what they need under ``build/compat``, ``runner.py``
and ``runner.mjs`` embed there, and ``report`` writes the table of ``docs/compatibility.md``.
"""
