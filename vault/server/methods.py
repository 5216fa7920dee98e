"""The table of methods: what each needs, what it is called in the audit log, and on what it acts.

A method that is not in the table is refused as a defect, and a test walks the service descriptors against
it. `resource` names the field that may go into the record of a refusal; every other field stays out.
"""

from __future__ import annotations

from dataclasses import dataclass

UNAUDITED = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
"""The services that leave no record: they reveal nothing but whether the vault works, and what it speaks."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the edge must know of a method."""

    action: str
    resource: str = ""
    needs_token: bool = True


UNKNOWN = Rule("rpc.unknown", needs_token=False)
"""What is recorded of a call of a method that there is not. Its name is free text, and stays out."""

RULES: dict[str, Rule] = {
    "/vault.v1.TokenService/Issue": Rule("token.issue", "tenant", needs_token=False),
    "/vault.v1.TokenService/Exchange": Rule("token.exchange"),
    "/vault.v1.TokenService/Revoke": Rule("token.revoke", "token_id"),
    "/vault.v1.TokenService/Introspect": Rule("token.introspect"),
    "/vault.v1.TokenService/GetJwks": Rule("token.get_jwks", needs_token=False),
    "/vault.v1.CredentialService/GetIngestKey": Rule("credential.get_ingest_key", needs_token=False),
    "/vault.v1.CredentialService/Put": Rule("credential.put", "name"),
    "/vault.v1.CredentialService/Get": Rule("credential.get", "name"),
    "/vault.v1.CredentialService/List": Rule("credential.list", "prefix"),
    "/vault.v1.CredentialService/ListVersions": Rule("credential.list_versions", "name"),
    "/vault.v1.CredentialService/Watch": Rule("credential.watch", "prefix"),
    "/vault.v1.CredentialService/SetStanding": Rule("credential.set_standing", "name"),
    "/vault.v1.CredentialService/CreateKey": Rule("credential.create_key", "name"),
    "/vault.v1.CredentialService/GetPublicKey": Rule("credential.get_public_key", "name"),
    "/vault.v1.CredentialService/Delete": Rule("credential.delete", "name"),
    "/vault.v1.CredentialService/Undelete": Rule("credential.undelete", "name"),
    "/vault.v1.CredentialService/DestroyVersion": Rule("credential.destroy_version", "name"),
    "/vault.v1.SessionService/Open": Rule("session.open"),
    "/vault.v1.SessionService/Reveal": Rule("session.reveal", "credentials"),
    "/vault.v1.WebhookService/CreateEndpoint": Rule("webhook.create", "credential"),
    "/vault.v1.WebhookService/ListEndpoints": Rule("webhook.list"),
    "/vault.v1.WebhookService/DeleteEndpoint": Rule("webhook.delete", "endpoint_id"),
    "/vault.v1.HandoverService/Wrap": Rule("handover.wrap", "name"),
    "/vault.v1.HandoverService/Unwrap": Rule("handover.unwrap", "name"),
    "/vault.v1.KeyService/CreateTenant": Rule("key.create_tenant", "tenant"),
    "/vault.v1.KeyService/Rotate": Rule("key.rotate", "tenant"),
    "/vault.v1.KeyService/List": Rule("key.list", "tenant"),
    "/vault.v1.KeyService/Describe": Rule("key.describe", "tenant"),
    "/vault.v1.ThreatService/List": Rule("threat.list"),
    "/vault.v1.ThreatService/Explain": Rule("threat.explain", "threat_id"),
    "/vault.v1.ThreatService/Release": Rule("threat.release", "threat_id"),
    "/vault.v1.ThreatService/GetBlastRadius": Rule("threat.blast_radius", "token_id"),
    "/vault.v1.PolicyService/Get": Rule("policy.get"),
    "/vault.v1.PolicyService/List": Rule("policy.list"),
    "/vault.v1.PolicyService/Validate": Rule("policy.validate"),
    "/vault.v1.PolicyService/Apply": Rule("policy.apply"),
    "/vault.v1.PolicyService/Explain": Rule("policy.explain"),
    "/vault.v1.PolicyService/ListReachers": Rule("policy.list_reachers", "name"),
    "/vault.v1.KeyService/GetStatus": Rule("key.get_status", "tenant"),
    "/vault.v1.KeyService/ListUses": Rule("key.list_uses", "tenant"),
    "/vault.v1.KeyService/Retire": Rule("key.retire", "tenant"),
    "/vault.v1.KeyService/Quarantine": Rule("key.quarantine", "tenant"),
    "/vault.v1.KeyService/Restore": Rule("key.restore", "tenant"),
    "/vault.v1.KeyService/Destroy": Rule("key.schedule_destruction", "tenant"),
    "/vault.v1.KeyService/SetSchedule": Rule("key.schedule", "tenant"),
    "/vault.v1.ApprovalService/Request": Rule("approval.request"),
    "/vault.v1.ApprovalService/Approve": Rule("approval.approve", "approval_id"),
    "/vault.v1.ApprovalService/Get": Rule("approval.get", "approval_id"),
    "/vault.v1.ApprovalService/List": Rule("approval.list"),
    "/vault.v1.ApprovalService/Cancel": Rule("approval.cancel", "approval_id"),
    "/vault.v1.ErasureService/Describe": Rule("tenant.describe_erasure", "tenant"),
    "/vault.v1.ErasureService/Erase": Rule("tenant.erase", "tenant"),
    "/vault.v1.JobService/Start": Rule("job.start", "tenant"),
    "/vault.v1.JobService/Get": Rule("job.get", "tenant"),
    "/vault.v1.JobService/List": Rule("job.list", "tenant"),
    "/vault.v1.JobService/ListFailures": Rule("job.list_failures", "tenant"),
    "/vault.v1.JobService/Update": Rule("job.update", "tenant"),
    "/vault.v1.JobService/Watch": Rule("job.watch", "tenant"),
    "/vault.v1.AuditService/List": Rule("audit.list", "tenant"),
    "/vault.v1.AuditService/GetCheckpoint": Rule("audit.get_checkpoint"),
    "/vault.v1.AuditService/Verify": Rule("audit.verify"),
    "/vault.v1.AuditService/WatchVerify": Rule("audit.verify"),
    "/vault.v1.AuditService/Report": Rule("audit.report"),
    "/vault.v1.AuditService/ListSinks": Rule("audit.list_sinks"),
    "/vault.v1.AuditService/ListCheckpoints": Rule("audit.list_checkpoints"),
    "/vault.v1.AuditService/GetInclusionProof": Rule("audit.get_inclusion_proof"),
    "/vault.v1.AuditService/GetConsistencyProof": Rule("audit.get_consistency_proof"),
    "/vault.v1.AuditService/AcceptLoss": Rule("audit.accept_loss"),
    "/vault.v1.AuditService/Identify": Rule("audit.identify"),
}
