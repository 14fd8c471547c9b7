"""The Jacobian of a network's signal by its inputs, and its singular values."""
