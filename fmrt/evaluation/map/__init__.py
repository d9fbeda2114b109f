"""A map of a data set: each item a point, near to those that its vector is near to.

``draw`` embeds and puts together, ``project`` gives places in the plane, ``clusters`` groups,
``stored`` makes vectors small enough for a page, ``preview`` makes items so; ``query`` is the model
that a page embeds queries with; ``page`` and ``picture`` write what was put together. The page's
own program is in the folder ``page``.
"""

from fmrt.evaluation.map.draw import draw_map

__all__ = ["draw_map"]
