//! From findings, or from children, to a verdict.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::findings::{self, Scan};
use super::look::{Reactor, Subject};
use super::policy::{self, Judgement, Loaded};
use super::verdict::{Outcome, Verdict};
use super::{Facts, ReactError};
use crate::limits;
use crate::state::ImageRecord;

/// Whether the record's verdict already knows what an event of `scanned_at` tells, under the policy in force `now`.
/// Without such a time, a verdict that is not a pass is always made anew: time itself may have changed it.
pub(super) fn is_current(record: &ImageRecord, policy: &Loaded, scanned_at: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(verdict) = &record.verdict else { return false };
    if verdict.policy != policy.policy.version || rests_on_an_end(verdict, policy, now) {
        return false;
    }
    match scanned_at {
        Some(at) => {
            verdict.read_at.duration_since(at).as_secs() > i64::try_from(limits::CLOCK_SKEW.as_secs()).unwrap_or(0)
        }
        None => verdict.outcome == Outcome::Pass,
    }
}

/// Whether an exception that the verdict used has ended since.
pub(super) fn rests_on_an_end(verdict: &Verdict, policy: &Loaded, now: Timestamp) -> bool {
    let day = |at: Timestamp| at.to_zoned_datetime(TimeZone::UTC).date();
    policy.policy.has_ended(&verdict.excepted, day(verdict.read_at), day(now))
}

impl Reactor {
    /// The verdict of an image by its findings now, `None` while its scan is awaited; and whether ECR says that the scan
    /// goes on.
    pub(super) async fn verdict_of_image(
        &self,
        subject: &Subject<'_>,
        policy: &Loaded,
    ) -> Result<(Option<Verdict>, bool), ReactError> {
        let record = &subject.record;
        let Some(facts) = &record.facts else { return Ok((None, false)) };
        let read_at = (self.now)();
        let scan = findings::read(&self.ecr, &record.repository, record.digest, record.scan_ended).await?;
        let mut judgement = judge(record, facts, &scan, policy, read_at);
        if let (None, Scan::Waiting { status }) = (judgement.outcome, &scan)
            && self.waited_long_enough(record, read_at)
        {
            judgement.outcome = Some(Outcome::Inconclusive);
            judgement.reason = self.silence(subject, status).await?;
            judgement.allows_release = policy.policy.rules(&record.repository).allow(judgement.outcome);
        }
        Ok((Verdict::new(judgement, policy, read_at), scan.is_running()))
    }

    /// The worst of an index's children, as their records have it; what another policy said of one counts for nothing,
    /// and whoever judges it by this one looks here again.
    pub(super) async fn verdict_of_index(
        &self,
        record: &ImageRecord,
        policy: &Loaded,
    ) -> Result<Option<Verdict>, ReactError> {
        let Some(facts) = &record.facts else { return Ok(None) };
        let read_at = (self.now)();
        let mut children = Vec::with_capacity(facts.children.len());
        for child in &facts.children {
            let known = self.records.find(&record.repository, child.digest).await?;
            let verdict = known.and_then(|known| known.verdict);
            let verdict = verdict.filter(|verdict| verdict.policy == policy.policy.version);
            children.push((child.platform.clone(), child.digest, verdict));
        }
        // Written also when nothing changed: so that a fold that began earlier and ends later does not stand.
        Ok(Verdict::fold(&children, read_at))
    }

    fn waited_long_enough(&self, record: &ImageRecord, now: Timestamp) -> bool {
        let wait = SignedDuration::try_from(self.config.scan_wait).unwrap_or(SignedDuration::MAX);
        record.pushed_at.is_some_and(|pushed_at| now.duration_since(pushed_at) > wait)
    }

    /// Why no scan has come.
    async fn silence(&self, subject: &Subject<'_>, status: &str) -> Result<String, ReactError> {
        let minutes = self.config.scan_wait.as_secs() / 60;
        let repository = &subject.record.repository;
        if self.repositories.is_scanned(repository, subject.settings).await? {
            Ok(format!("no scan result within {minutes} minutes (status: {status})"))
        } else {
            Ok(format!("this registry's scanning configuration does not cover {repository}"))
        }
    }
}

fn judge(record: &ImageRecord, facts: &Facts, scan: &Scan, policy: &Loaded, at: Timestamp) -> Judgement {
    let subject =
        policy::Subject { repository: &record.repository, labels: &facts.labels, size_bytes: facts.size_bytes };
    policy.policy.judge(subject, scan, at.to_zoned_datetime(TimeZone::UTC).date())
}
