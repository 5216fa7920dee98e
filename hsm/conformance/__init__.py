"""What every backend must do, as tests that the author of any backend can run.

    pytest -p hsm.conformance.plugin --pyargs hsm.conformance --hsm-uri 'pkcs11:serial=...?module-path=...'

It makes and destroys keys whose labels begin with `conformance/`, and touches no others. Or import
`hsm.conformance.suite` into a test module that defines the fixture `uri`.
"""
