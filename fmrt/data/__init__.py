"""Stream texts from files, and vectors to files, in bounded memory.

``read_records`` yields one ``Record`` or ``BadRecord`` a line, and tells what it passed over;
``open_writer`` returns a ``Writer`` whose output appears under its final name only when it is
complete; ``read_embeddings`` reads such an output back, and ``read_provenance`` says where its
vectors come from. pyarrow is imported only when a parquet file is named.
"""

from fmrt.data._arrow import arrow_columns, arrow_records, stated_features
from fmrt.data._embeddings import read_embeddings
from fmrt.data._folder import described, list_files
from fmrt.data._formats import columns_of, modality_of, read_records
from fmrt.data._media import MEDIA, Media
from fmrt.data._output_format import Writer
from fmrt.data._outputs import STDOUT, open_writer, shard_formats
from fmrt.data._reading import AS_IT_SAYS, Reading, as_reading
from fmrt.data._records import BadRecord, PassedOver, Record, Records, kept_bytes
from fmrt.data.provenance import read_provenance

__all__ = [
    "AS_IT_SAYS",
    "MEDIA",
    "STDOUT",
    "BadRecord",
    "Media",
    "PassedOver",
    "Reading",
    "Record",
    "Records",
    "Writer",
    "arrow_columns",
    "arrow_records",
    "as_reading",
    "columns_of",
    "described",
    "kept_bytes",
    "list_files",
    "modality_of",
    "open_writer",
    "read_embeddings",
    "read_provenance",
    "read_records",
    "shard_formats",
    "stated_features",
]
