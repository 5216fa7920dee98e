"""How providers sign their webhooks: one module a scheme, each a function that gives a verdict."""
