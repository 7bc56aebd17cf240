"""The commands of `scout-server`, a module for each kind; server/cli.py joins them."""
