"""What a secret can be used for without being revealed: one module a use, `table.py` names them all.

A use is a function over locked buffers: it is given a credential of the session and a request, and answers
with what may be known: a verdict, a code, a signature, a provider's answer. It never answers with a secret,
nor with what a right signature would have been.
"""
