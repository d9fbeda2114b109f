"""A map of a data set. Each item is a point near the items whose vectors are near its own.

``draw`` embeds and puts the parts together. ``project`` gives places in the plane, ``clusters``
groups the items, ``stored`` makes vectors small enough for a page, and ``preview`` does the same
for items. ``query`` is the model that a page embeds queries with. ``page`` and ``picture`` write
the map. The page's own program is in the folder ``page``.
"""

from fmrt.evaluation.map.draw import draw_map

__all__ = ["draw_map"]
