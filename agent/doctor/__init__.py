"""Finds out why a device doesn't deliver, one small check at a time. Nothing is stored, here or at the server."""
