"""Large embedding jobs: shards in a folder, and a journal from which a killed job goes on.

A shard holds the vectors of a fixed range of the input's records, and is computed from them alone,
so that it does not matter for its bytes where a job was cut. It takes its name when it is complete
and on the disk, and only then an entry in ``journal.jsonl``. When all shards are there,
``index.json`` takes the journal's place.
"""

from fmrt.jobs._folder import Folder
from fmrt.jobs._provenance import provenance_of, space_of
from fmrt.jobs._settings import Setting, merged
from fmrt.jobs._sink import ShardSink

__all__ = ["Folder", "Setting", "ShardSink", "merged", "provenance_of", "space_of"]
