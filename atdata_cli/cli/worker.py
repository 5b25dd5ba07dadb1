"""What the program's worker processes import, once for all of them, before they start."""

from atdata_cli.cli.imports import import_webdataset

import_webdataset()

import atdata_cli.shards.making  # noqa: E402, F401
