"""Rules of built-in kinds: defaults, what the server sets, validity. One module per family; the table is
`table.py`."""
