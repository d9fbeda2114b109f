"""Large embedding jobs: an input into one file, or into shards from which a killed job goes on.

A shard holds the vectors of a fixed range of the input's records, and is computed from them alone,
so that it does not matter for its bytes where a job was cut. It takes its name when it is complete
and on the disk, and only then an entry in ``journal.jsonl``. When all shards are there,
``index.json`` takes the journal's place.
"""

from fmrt.jobs._provenance import provenance_of, space_of
from fmrt.jobs._result import Embedded
from fmrt.jobs._to_file import embed_to_file
from fmrt.jobs._to_folder import embed_to_folder

__all__ = ["Embedded", "embed_to_file", "embed_to_folder", "provenance_of", "space_of"]
