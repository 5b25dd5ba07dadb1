"""``python -m atdata_cli``, and the console script."""

import gc

# Live containers between two collections; Python's own 700 cost a tenth of the time of a run over rows, which are
# millions of small objects without a cycle among them. Before the imports, as they make many, too.
gc.set_threshold(50_000)

from atdata_cli.cli.app import main  # noqa: E402 - see above

__all__ = ["main"]

if __name__ == "__main__":
    main()
