"""The embedding store, and ``embed``, which computes only what the store does not hold.

::

    keys     a text's 128-bit name; finding many of them
    folder   files in a local or s3:// folder: complete or absent
    parts    one Parquet part: keys, token counts, vectors, what it took, checksum in its name
    store    the parts of one spec; which keys they hold
    gather   the rows a data set needs, in its order, as one memory-mapped array
    stages   what runs in the workers: tokenise; extract and write a part
    embed    all of it: texts -> Embedded
"""

from __future__ import annotations

from llmembed.embeddings.embed import Embedded, embed
from llmembed.embeddings.folder import Folder
from llmembed.embeddings.store import Store

__all__ = ["Embedded", "Folder", "Store", "embed"]
