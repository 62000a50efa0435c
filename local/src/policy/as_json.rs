//! Policies and what they say, for programs.

use gantry::image::Digest;
use gantry::react::policy::{Policy, Rules};
use gantry::state::ImageRecord;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::Judged;

/// What a policy means.
pub(super) fn policy(policy: &Policy, today: Date) -> Value {
    let repositories: Vec<Value> =
        policy.overrides().map(|(glob, changed)| json!({"match": glob, "rules": rules(&changed)})).collect();
    let exceptions = policy.exceptions().iter().map(|one| {
        json!({
            "id": one.id, "repository": one.repository, "package": one.package, "reason": one.reason,
            "owner": one.owner, "expires": one.expires.to_string(), "days_left": one.days_left(today),
        })
    });
    json!({
        "version": policy.version, "everywhere": rules(policy.everywhere()), "repositories": repositories,
        "exceptions": exceptions.collect::<Vec<_>>(),
    })
}

fn rules(rules: &Rules) -> Value {
    json!({
        "max_severity": rules.max_severity.to_string(), "max_counts": rules.max_counts,
        "fixable_only": rules.fixable_only, "inconclusive": rules.inconclusive, "undefined_as": rules.undefined_as,
        "required_labels": rules.required_labels, "max_size_bytes": rules.max_size_bytes,
    })
}

/// What is recorded of an image, and what the policy says of it now.
pub(super) fn explained(
    image: &str,
    digest: Digest,
    record: Option<&ImageRecord>,
    policy: &Policy,
    judged: &[Judged],
) -> Value {
    let now = judged.iter().map(|one| {
        json!({
            "platform": one.platform, "digest": one.digest, "judgement": one.judgement, "scan_waits": one.waiting,
        })
    });
    json!({
        "image": image, "digest": digest, "policy": policy.version,
        "verification": record.and_then(|record| record.verification.as_ref()),
        "verdict": record.and_then(|record| record.verdict.as_ref()),
        "released_at": record.and_then(|record| record.released.as_ref()).map(|released| released.at),
        "now": now.collect::<Vec<_>>(),
    })
}
