"""The processes of a job that measure together, and what is spread over them."""
