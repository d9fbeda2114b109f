"""Models that segment: an image tower, and a head from points and boxes to masks."""
