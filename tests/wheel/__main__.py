"""Tries the built wheel away from the checkout; `python3 dev.py test` ends with it.

python -m tests.wheel         all of it
python -m tests.wheel EXTRAS  the environments of these extras alone, such as image or export,audio;
                              none for the one without any
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dev import python, run
from tests.wheel import oldest, promises


def main() -> None:
    """Build the wheel and bundles of tiny models, and try them."""
    with TemporaryDirectory() as name:
        place = Path(name)
        bundles = place / "bundles"
        run(python(), "-m", "tests.export.bundles", str(bundles))
        run(python(), "-m", "build", "--wheel", "--outdir", name, ".")
        wheel = next(place.glob("*.whl"))
        if not sys.argv[1:]:
            oldest.check(wheel, bundles, place / "oldest")
        promises.check(wheel, bundles, place / "extras", sys.argv[1:])


if __name__ == "__main__":
    main()
