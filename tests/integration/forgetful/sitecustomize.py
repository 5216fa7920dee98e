"""Makes a vault that forgets to look at scopes: every token covers every name. What is left is the second wall."""

from vault.crypto import scopes

scopes.covers = lambda *_: True
