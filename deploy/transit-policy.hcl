# What the vault's log-in may do on a Transit mount of HashiCorp Vault or OpenBao, and no more.
#
# With it nobody who has the log-in can get a key out: it cannot export or back up, and cannot make a key
# exportable. `encrypt` has no `create`, else encrypting with a key that was destroyed would make a new one.
# Change `transit` where the mount has another name.

path "transit/keys" {
  capabilities = ["list"]
}

path "transit/keys/+" {
  capabilities = ["create", "update", "read", "delete"]
  allowed_parameters = {
    "type"                   = []
    "key_size"               = []
    "exportable"             = [false]
    "allow_plaintext_backup" = [false]
  }
}

path "transit/keys/+/rotate" {
  capabilities = ["create", "update"]
}

path "transit/keys/+/config" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "min_encryption_version" = []
    "min_decryption_version" = []
    "deletion_allowed"       = []
  }
}

path "transit/encrypt/+" {
  capabilities = ["update"]
}

path "transit/decrypt/+" {
  capabilities = ["update"]
}

path "transit/sign/+" {
  capabilities = ["update"]
}

path "transit/hmac/+/sha2-256" {
  capabilities = ["update"]
}

path "transit/random" {
  capabilities = ["update"]
}
