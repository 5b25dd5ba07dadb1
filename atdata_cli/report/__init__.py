"""``inspect --html``: one self-contained page to look at a dataset."""
