"""The loss's Hessian and Gauss-Newton matrix: products, eigenvalues, density, trace."""
