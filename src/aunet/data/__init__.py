"""Reading: sources of documents, their lanes, rows, and the loader that mixes them into a resumable sequence."""

from aunet.data.batch import Batch, collate
from aunet.data.loader import Loader
from aunet.data.mixing import Share
from aunet.data.problems import Problems
from aunet.data.rows import Row
from aunet.data.sources import documents, files_documents, valid_documents

__all__ = ["Batch", "Loader", "Problems", "Row", "Share", "collate", "documents", "files_documents", "valid_documents"]
