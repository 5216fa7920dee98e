"""The way out: one HTTPS request to a provider, made in a process of its own that ends with it."""
