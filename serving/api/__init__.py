"""HTTP: one file per resource, problem responses for everything that is refused."""
