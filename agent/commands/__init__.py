"""The commands of `scout-agent`, one noun a file; agent/cli.py joins them."""
