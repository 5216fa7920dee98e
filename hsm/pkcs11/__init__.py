"""The PKCS#11 backend: the only part of the library that imports `pkcs11` or speaks Cryptoki."""
