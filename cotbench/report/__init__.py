"""One self-contained page of results: figures, tables, captions, and a browser for episodes."""
