//! Which facts there are to tell of an image or of the policy, each claimed before it is told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::ReactError;
use super::look::{Reactor, Subject};
use super::policy::{self, Exception, Loaded};
use super::release::{HoldKind, Standing};
use super::tagging::is_ours;
use super::verdict::{Outcome, Verdict};
use crate::config::ReleaseGate;
use crate::image::Tag;
use crate::notify::{DetailType, ImageDetail, Notice, ReasonDetail, UploadDetail, VerdictDetail};
use crate::state::ImageRecord;
use crate::state::image_record::{ReleasedBy, Told, claim};

/// Where it is kept what people were told of the policy.
const POLICY_TOLD: &str = "policy.told.json";

const WANTED: &str = "what was told of the policy";

/// What the fact begins with that an image is released under a tag.
const RELEASED: &str = "released:";

/// What the fact begins with that it is whole again after its verification had failed.
const RECOVERED: &str = "recovered:";

impl Reactor {
    /// Tells what is new about the image: that it is released, for each of its tags; that it is held; that its verdict
    /// has changed since. Of an image that nobody tagged or uploaded nobody waits to hear.
    pub(super) async fn tell_of(&self, subject: &mut Subject<'_>, standing: &Standing) -> Result<(), ReactError> {
        let notices = self.notices(subject, standing);
        let open: Vec<String> = notices.iter().map(|notice| notice.fact.clone()).collect();
        for notice in notices {
            let (repository, digest) = (subject.record.repository.clone(), subject.record.digest);
            let (fact, now) = (notice.fact.clone(), (self.now)());
            let mut is_mine = false;
            let claim = self.records.update(&repository, digest, |record| {
                is_mine = !is_overtaken(&notice, record) && record.claim(&fact, now);
            });
            subject.record = claim.await?;
            if !is_mine {
                continue;
            }
            let told = self.notifier.tell(&notice).await;
            let done = told.is_ok();
            let settle = self.records.update(&repository, digest, |record| {
                if done {
                    record.told.insert(fact.clone(), Told { claimed_at: now, done, delivery: None });
                } else {
                    // Given back, so that the next delivery need not wait for the claim to grow stale.
                    record.told.remove(&fact);
                }
            });
            let settled = settle.await;
            told?;
            subject.record = settled?;
        }
        self.end_hold(subject, standing).await?;
        // Otherwise every sweep would look here again, for what nobody will ever tell.
        let now = (self.now)();
        if subject.record.has_stale_claim(now) {
            let (repository, digest) = (subject.record.repository.clone(), subject.record.digest);
            let forget = self.records.update(&repository, digest, |record| record.forget_stale_claims(&open, now));
            subject.record = forget.await?;
        }
        Ok(())
    }

    fn notices(&self, subject: &Subject<'_>, standing: &Standing) -> Vec<Notice> {
        let record = &subject.record;
        let tags = &subject.listed.tags;
        if tags.is_empty() && record.uploads.is_empty() {
            return Vec::new();
        }
        let is_artifact = subject.kind() == Some(super::facts::Kind::Artifact);
        let mut notices = Vec::new();
        match standing {
            Standing::Waiting => {}
            Standing::Released(_) if is_artifact => {}
            Standing::Released(by) => {
                notices.extend(self.released_tags(subject).into_iter().map(|tag| released_notice(subject, tag, *by)));
                notices.extend(recovered_notice(subject));
            }
            Standing::Held(hold) => notices.push(Notice {
                detail_type: DetailType::ImageHeld,
                fact: match hold.kind {
                    HoldKind::Verification => held_fact(record),
                    HoldKind::Policy | HoldKind::Inconclusive => fact(record, &format!("held:{}", hold.kind.as_str())),
                },
                state: "held",
                needs_a_person: true,
                reason: Some(ReasonDetail::new(hold.kind.as_str(), &hold.text, &hold.fix)),
                ..about(subject, tags, "is in ECR, and must not be used")
            }),
        }
        notices.extend(self.changed_verdict(subject));
        notices
    }

    /// The tags that an image is told to be released under: those that we did not set. One that somebody gave nothing
    /// but a commit's tag is told of under that, unless it was under another before.
    fn released_tags<'s>(&self, subject: &'s Subject<'_>) -> Vec<&'s Tag> {
        let record = &subject.record;
        let tags = &subject.listed.tags;
        let is_float = |tag: &Tag| record.floats.contains_key(tag);
        let others: Vec<&Tag> =
            tags.iter().filter(|tag| !is_ours(tag, &self.config.floating, tags) && !is_float(tag)).collect();
        if !others.is_empty() {
            return others;
        }
        let commits: Vec<&Tag> = tags.iter().filter(|tag| !is_float(tag)).collect();
        let told = fact(record, RELEASED);
        let is_known = |known: &String| commits.iter().any(|tag| *known == fact(record, &format!("{RELEASED}{tag}")));
        let is_told = record.told.keys().any(|known| known.starts_with(&told) && !is_known(known));
        if is_told { Vec::new() } else { commits }
    }

    /// Notes that a failed verification is over of which nobody need hear so: the next one is a fact of its own.
    async fn end_hold(&self, subject: &mut Subject<'_>, standing: &Standing) -> Result<(), ReactError> {
        let record = &subject.record;
        let is_over = matches!(standing, Standing::Released(_)) && record.told.contains_key(&held_fact(record));
        if !is_over || recovered_notice(subject).is_some() {
            return Ok(());
        }
        let (repository, digest) = (record.repository.clone(), record.digest);
        let (recovered, told) = (recovered_fact(record), Told { claimed_at: (self.now)(), done: true, delivery: None });
        let end = self.records.update(&repository, digest, |record| {
            record.told.insert(recovered.clone(), told);
        });
        subject.record = end.await?;
        Ok(())
    }

    /// A released image whose verdict became another one afterwards; without a gate, also one that never was good.
    fn changed_verdict(&self, subject: &Subject<'_>) -> Option<Notice> {
        let record = &subject.record;
        let (released, verdict) = (record.released.as_ref()?, record.verdict.as_ref()?);
        // A first verdict that is good, or that never came, is no change.
        let is_change = verdict.before.is_some() || verdict.outcome == Outcome::Fail;
        let is_news = is_change
            && match self.config.gate {
                ReleaseGate::None => true,
                ReleaseGate::Scan => verdict.since > released.at,
            };
        if !is_news {
            return None;
        }
        let Verdict { outcome, since, .. } = verdict;
        let (headline, fix) = match outcome {
            Outcome::Pass => ("is within the policy now", "Nothing to do."),
            Outcome::Inconclusive => ("is released, and can no longer be judged", "See why its scan gives no answer."),
            Outcome::Fail => (
                "is released, and is against the policy now",
                "Plan a new image: this one stays in use until you replace it.",
            ),
        };
        let text = if verdict.reason.is_empty() { "no finding is against the policy" } else { verdict.reason.as_str() };
        Some(Notice {
            detail_type: DetailType::VerdictChanged,
            fact: fact(record, &format!("verdict:{}:{since}", outcome.as_str())),
            state: "released",
            needs_a_person: *outcome != Outcome::Pass,
            reason: Some(ReasonDetail::new("verdict", text, fix)),
            ..about(subject, &subject.listed.tags, headline)
        })
    }

    /// Tells, once each, that the policy file is not used, and which exceptions end soon or have ended.
    pub(super) async fn tell_of_policy(&self, loaded: &Loaded) -> Result<(), ReactError> {
        let now = (self.now)();
        let today = now.to_zoned_datetime(TimeZone::UTC).date();
        let bucket = self.state_bucket();
        let mut notices: Vec<Notice> = Vec::new();
        if let Some(problem) = &loaded.problem {
            let in_force = &loaded.policy.version;
            let fix =
                format!("Repair line {} of s3://{bucket}/{} and upload it again.", problem.error.line, policy::KEY);
            let text = format!("{}; the policy {in_force} stays in force", problem.error);
            let headline = "The policy file does not parse, and is not used";
            notices.push(of_policy(format!("policy:{}", problem.file), "parse", headline, &text, fix));
        }
        for exception in loaded.policy.ending(today) {
            notices.push(ending(exception, exception.days_left(today), bucket));
        }
        if notices.is_empty() {
            return Ok(());
        }
        let known = self.state.read::<BTreeMap<String, Told>>(POLICY_TOLD, WANTED).await?;
        let known = known.map(|read| read.value).unwrap_or_default();
        for notice in notices {
            if known.get(&notice.fact).is_none_or(|told| !told.done) && self.claim_of_policy(&notice.fact, now).await? {
                let told = self.notifier.tell(&notice).await;
                self.settle_of_policy(&notice.fact, now, told.is_ok()).await?;
                told?;
            }
        }
        Ok(())
    }

    async fn claim_of_policy(&self, fact: &str, now: Timestamp) -> Result<bool, ReactError> {
        let mut is_mine = false;
        let change = |known: Option<BTreeMap<String, Told>>| {
            let mut told = known.unwrap_or_default();
            is_mine = claim(&mut told, fact, now);
            is_mine.then_some(told)
        };
        self.state.update(POLICY_TOLD, WANTED, change).await?;
        Ok(is_mine)
    }

    async fn settle_of_policy(&self, fact: &str, now: Timestamp, done: bool) -> Result<(), ReactError> {
        let change = |known: Option<BTreeMap<String, Told>>| {
            let mut told = known.unwrap_or_default();
            if done {
                told.insert(fact.to_owned(), Told { claimed_at: now, done, delivery: None });
            } else {
                told.remove(fact);
            }
            Some(told)
        };
        self.state.update(POLICY_TOLD, WANTED, change).await?;
        Ok(())
    }
}

/// Whether somebody released the image since this was found out: people would hear last that it is held.
fn is_overtaken(notice: &Notice, record: &ImageRecord) -> bool {
    let by_verdict = || notice.reason.as_ref().is_some_and(|reason| reason.kind != HoldKind::Verification.as_str());
    notice.detail_type == DetailType::ImageHeld && record.released.is_some() && by_verdict()
}

/// A fact's name over all images.
fn fact(record: &ImageRecord, what: &str) -> String {
    format!("{}@{}:{what}", record.repository, record.digest)
}

/// A notice about the image, to be completed.
fn about(subject: &Subject<'_>, tags: &[Tag], what: &str) -> Notice {
    let record = &subject.record;
    let image = ImageDetail {
        repository: record.repository.clone(),
        digest: record.digest,
        tags: tags.to_vec(),
        uri: format!("{}@{}", subject.settings.uri, record.digest),
        platforms: record.facts.as_ref().map(|facts| facts.platforms.clone()).unwrap_or_default(),
        arn: Some(subject.settings.arn.clone()).filter(|arn| !arn.is_empty()),
    };
    let upload = record.uploads.first().map(UploadDetail::from);
    let headline = format!("{} {what}", image.name());
    let verdict = record.verdict.as_ref().map(VerdictDetail::from);
    Notice {
        detail_type: DetailType::ImageReleased,
        fact: String::new(),
        state: "released",
        needs_a_person: false,
        image: Some(image),
        upload,
        reason: None,
        verdict,
        headline,
    }
}

fn released_notice(subject: &Subject<'_>, tag: &Tag, by: ReleasedBy) -> Notice {
    let why = match by {
        ReleasedBy::Verification => "verified",
        ReleasedBy::Verdict => "verified, and within the policy",
        ReleasedBy::Hand => "verified, and released by hand in spite of its verdict",
    };
    let fix = format!("Deploy it: {}@{}", subject.settings.uri, subject.record.digest);
    Notice {
        fact: fact(&subject.record, &format!("{RELEASED}{tag}")),
        reason: Some(ReasonDetail::new("released", why, fix)),
        ..about(subject, std::slice::from_ref(tag), "is released")
    }
}

/// How often an image was whole again after its verification had failed.
fn recoveries(record: &ImageRecord) -> usize {
    let recovered = fact(record, RECOVERED);
    record.told.iter().filter(|(known, told)| told.done && known.starts_with(&recovered)).count()
}

/// The fact that an image failed verification; a new one after each time that it was whole again.
fn held_fact(record: &ImageRecord) -> String {
    let kind = HoldKind::Verification.as_str();
    match recoveries(record) {
        0 => fact(record, &format!("held:{kind}")),
        before => fact(record, &format!("held:{kind}:{}", before + 1)),
    }
}

/// The fact that an image is whole again after that.
fn recovered_fact(record: &ImageRecord) -> String {
    fact(record, &format!("{RECOVERED}{}", recoveries(record) + 1))
}

/// That a released image may be used again: people were told that it is released, and then that its verification
/// failed.
fn recovered_notice(subject: &Subject<'_>) -> Option<Notice> {
    let record = &subject.record;
    let held = record.told.get(&held_fact(record)).filter(|held| held.done)?;
    let was_told = |tag: &&Tag| {
        let told = record.told.get(&fact(record, &format!("{RELEASED}{tag}")));
        told.is_some_and(|told| told.done && told.claimed_at < held.claimed_at)
    };
    let tags: Vec<Tag> = subject.listed.tags.iter().filter(was_told).cloned().collect();
    if tags.is_empty() {
        return None;
    }
    let fix = format!("Use it again: {}@{}", subject.settings.uri, record.digest);
    Some(Notice {
        fact: recovered_fact(record),
        reason: Some(ReasonDetail::new("released", "verified again, after it had failed", fix)),
        ..about(subject, &tags, "is whole again")
    })
}

fn of_policy(fact: String, kind: &str, headline: &str, text: &str, fix: String) -> Notice {
    Notice {
        detail_type: DetailType::PolicyProblem,
        fact,
        state: "policy",
        needs_a_person: true,
        image: None,
        upload: None,
        reason: Some(ReasonDetail::new(kind, text, fix)),
        verdict: None,
        headline: headline.to_owned(),
    }
}

fn ending(exception: &Exception, days_left: i32, bucket: &str) -> Notice {
    let Exception { id, repository, package, reason, owner, expires, .. } = exception;
    let package = package.as_deref().map(|package| format!(" ({package})")).unwrap_or_default();
    let (kind, when) = if days_left < 0 { ("expired", "expired") } else { ("expiring", "expires") };
    let fix = format!("{owner}: repair it, or give it a new day in s3://{bucket}/{}.", policy::KEY);
    let text = format!("{id}{package} in {repository}: {reason}");
    let headline = format!("The exception for {id}{package} in {repository} {when} on {expires}");
    of_policy(format!("exception:{kind}:{id}{package}:{repository}:{expires}"), kind, &headline, &text, fix)
}
