"""Entries, verification and the web page. Empty in this release: the room is here so that names do not move later."""
