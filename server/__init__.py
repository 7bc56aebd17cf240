"""`scout-server`: receives batches, loads them into bronze, and makes silver and gold of them."""
