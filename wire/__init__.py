"""What crosses between agent and server, and nothing else: both sides import it, it imports neither."""
