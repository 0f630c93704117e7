"""The step loop: which tokens are computed next, where they go, what is kept of them."""
