"""A backend in a process of its own, which may crash or hang without taking its caller along.

Vendors' libraries are large, closed and sometimes fatal. With `x-isolation=process` in a `pkcs11:` URI the
library, the log-in and the PIN live in a child, started anew when it dies or does not answer in time. A call
costs one round trip over a Unix socket more, which next to a network HSM is nothing.
"""
