//! `gantry policy`: what a policy file means, and what the policy says of an image.

mod as_json;

use std::path::Path;

use gantry::ecr::Repositories;
use gantry::image::{Digest, Repository, Tag};
use gantry::react::findings::{self, Scan};
use gantry::react::policy::{Exception, Judgement, Policies, Policy, Rules, Subject, WhenInconclusive};
use gantry::state::{Documents, ImageRecord, ImageRecords};
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::cli::{CommandError, PolicyCommand, StackArgs};
use crate::session::{Functions, Session, SessionError};
use crate::story::say;

pub(crate) async fn run(stack: StackArgs, command: PolicyCommand) -> Result<(), CommandError> {
    match command {
        PolicyCommand::Check { file, json } => {
            let policy = read(&file).await?;
            if json {
                say(as_json::policy(&policy, today()).to_string());
            } else {
                check(&policy, today());
            }
            Ok(())
        }
        PolicyCommand::Explain { image, policy, json } => {
            let policy = match &policy {
                Some(file) => Some(read(file).await?),
                None => None,
            };
            let session = Session::open(&stack, Functions::Leave).await?;
            let outcome = explain(&session, &image, policy, json).await;
            session.close().await;
            outcome
        }
    }
}

async fn read(file: &Path) -> Result<Policy, CommandError> {
    let path = || file.to_owned();
    let bytes = tokio::fs::read(file).await.map_err(|source| CommandError::File { path: path(), source })?;
    Policy::parse(&bytes).map_err(|source| CommandError::Policy { path: path(), source })
}

#[expect(clippy::disallowed_methods, reason = "the program is where the clock is read")]
fn today() -> Date {
    jiff::Timestamp::now().to_zoned_datetime(TimeZone::UTC).date()
}

fn check(policy: &Policy, today: Date) {
    say(format!("policy {}", policy.version));
    say("everywhere:");
    tell(policy.everywhere());
    for (glob, rules) in policy.overrides() {
        say(format!("where the repository is {glob}:"));
        tell(&rules);
    }
    for (first, second, rules) in policy.overlaps() {
        say(format!("where it is both {first} and {second}, whose rules are taken in this order:"));
        tell(&rules);
    }
    for exception in policy.exceptions() {
        let Exception { id, repository, package, reason, owner, expires, .. } = exception;
        let package = package.as_deref().map(|package| format!(", package {package}")).unwrap_or_default();
        let left = match exception.days_left(today) {
            days @ ..0 => format!("expired {} days ago, so it does not hold", -days),
            days => format!("{days} days left"),
        };
        say(format!("exception for {id} in {repository}{package}: {reason} ({owner}, until {expires}: {left})"));
    }
}

fn tell(rules: &Rules) {
    let Rules { max_severity, max_counts, fixable_only, inconclusive, undefined_as, required_labels, max_size_bytes } =
        rules;
    let which = if *fixable_only { "with a fix" } else { "of any kind" };
    say(format!("  of findings {which}, {max_severity}"));
    for (severity, most) in max_counts {
        say(format!("  at most {most} of {severity}"));
    }
    let inconclusive = match inconclusive {
        WhenInconclusive::Hold => "holds a release",
        WhenInconclusive::Pass => "lets a release go on",
    };
    say(format!("  a scan without an answer {inconclusive}; a finding without a level counts as {undefined_as}"));
    for label in required_labels {
        say(format!("  the label {label} is required"));
    }
    if let Some(most) = max_size_bytes {
        say(format!("  at most {} MiB of layers", most >> 20));
    }
}

async fn explain(session: &Session, image: &str, policy: Option<Policy>, json: bool) -> Result<(), CommandError> {
    let nothing = || CommandError::NothingThere(format!("there is no image called {image:?}; wanted REPOSITORY:TAG"));
    let (repository, tag) = image.rsplit_once(':').ok_or_else(nothing)?;
    let (Ok(repository), Ok(tag)) = (repository.parse::<Repository>(), tag.parse::<Tag>()) else {
        return Err(nothing());
    };
    // The stack's name is asked for only to tell whose repository it is.
    let repositories = Repositories::new(session.ecr.clone(), String::new());
    let listed = repositories.image(&repository, None, Some(&tag)).await;
    let listed = listed.map_err(|error| SessionError::request("asking ECR", error))?.ok_or_else(nothing)?;
    let documents = Documents::new(session.s3.clone(), &session.state);
    let records = ImageRecords::new(documents.clone());
    let record = records.find(&repository, listed.digest).await;
    let record = record.map_err(|error| SessionError::request("reading the image's record", error))?;
    let policy = if let Some(policy) = policy {
        policy
    } else {
        let loaded = Policies::new(documents).peek().await;
        loaded.map_err(|error| SessionError::request("reading the policy", error))?.policy
    };
    if json {
        let judged = match &record {
            Some(record) => judge_now(session, &records, record, &policy).await?,
            None => Vec::new(),
        };
        say(as_json::explained(image, listed.digest, record.as_ref(), &policy, &judged).to_string());
        return Ok(());
    }
    say(format!("{repository}:{tag} is {}", listed.digest));
    let Some(record) = record else {
        say("nothing has looked at it yet: it is neither verified nor judged");
        return Ok(());
    };
    tell_record(&record);
    let judged = judge_now(session, &records, &record, &policy).await?;
    tell_judged(&record, &policy, &judged);
    Ok(())
}

fn tell_record(record: &ImageRecord) {
    match &record.verification {
        None => say("it is not verified yet"),
        Some(verification) if verification.passed => say(format!("it was verified at {}", verification.at)),
        Some(verification) => {
            for check in &verification.failures {
                say(format!("it failed verification: {}: wanted {}, found {}", check.what, check.wanted, check.found));
            }
        }
    }
    if let Some(verdict) = &record.verdict {
        let reason = if verdict.reason.is_empty() { String::new() } else { format!(": {}", verdict.reason) };
        let (outcome, policy, since) = (verdict.outcome.as_str(), &verdict.policy, verdict.since);
        say(format!("its verdict is {outcome} by policy {policy} since {since}{reason}"));
    }
    match &record.released {
        Some(released) => say(format!("it is released since {}; a later verdict does not take that back", released.at)),
        None => say("it is not released"),
    }
}

/// What the policy says now of an image, or of one of an index.
struct Judged {
    /// Of an index, which of its images.
    platform: Option<String>,
    digest: Digest,
    /// `None` for what was never looked at.
    judgement: Option<Judgement>,
    /// The scanner's word for a scan that has no answer yet.
    waiting: Option<String>,
}

/// What `policy` says of the image's findings as they are now; of an index, of each of its images.
async fn judge_now(
    session: &Session,
    records: &ImageRecords,
    record: &ImageRecord,
    policy: &Policy,
) -> Result<Vec<Judged>, CommandError> {
    let Some(facts) = &record.facts else { return Ok(Vec::new()) };
    if facts.children.is_empty() {
        return Ok(vec![judged(session, Some(record), None, record.digest, policy).await?]);
    }
    let mut all = Vec::with_capacity(facts.children.len());
    for child in &facts.children {
        let known = records.find(&record.repository, child.digest).await;
        let known = known.map_err(|error| SessionError::request("reading an image's record", error))?;
        all.push(judged(session, known.as_ref(), Some(child.platform.clone()), child.digest, policy).await?);
    }
    Ok(all)
}

async fn judged(
    session: &Session,
    record: Option<&ImageRecord>,
    platform: Option<String>,
    digest: Digest,
    policy: &Policy,
) -> Result<Judged, CommandError> {
    let facts = record.and_then(|record| Some((record, record.facts.as_ref()?)));
    let Some((record, facts)) = facts else { return Ok(Judged { platform, digest, judgement: None, waiting: None }) };
    let scan = findings::read(&session.ecr, &record.repository, record.digest, record.scan_ended).await;
    let scan = scan.map_err(|error| SessionError::request("reading the findings", error))?;
    let waiting = match &scan {
        Scan::Waiting { status } => Some(status.clone()),
        _ => None,
    };
    let subject = Subject { repository: &record.repository, labels: &facts.labels, size_bytes: facts.size_bytes };
    Ok(Judged { platform, digest, judgement: Some(policy.judge(subject, &scan, today())), waiting })
}

fn tell_judged(record: &ImageRecord, policy: &Policy, all: &[Judged]) {
    let is_index = record.facts.as_ref().is_some_and(|facts| !facts.children.is_empty());
    if is_index {
        say(format!("an index takes the worst verdict of its images; policy {} says now:", policy.version));
    }
    let mut may_go_on = true;
    for Judged { platform, digest, judgement, waiting } in all {
        if let Some(status) = waiting {
            say(format!("the scan of {digest} has no answer yet ({status})"));
        }
        may_go_on &= judgement.as_ref().is_some_and(|judgement| judgement.allows_release);
        let release = if may_go_on { "a release may go on" } else { "a release waits" };
        match (platform, judgement) {
            (Some(platform), _) => {
                let outcome = judgement.as_ref().map_or("nothing has looked at it yet", word);
                say(format!("{platform} {digest}: {outcome}"));
            }
            (None, Some(judgement)) => {
                let outcome = word(judgement);
                say(format!("policy {} says now: {outcome}; with the gate `scan`, {release}", policy.version));
            }
            (None, None) => {}
        }
        if let Some(judgement) = judgement {
            tell_judgement(judgement);
        }
    }
    if is_index {
        let release = if may_go_on { "may go on" } else { "waits" };
        say(format!("with the gate `scan`, a release of the index {release}"));
    }
}

fn word(judgement: &Judgement) -> &'static str {
    judgement.outcome.map_or("no verdict yet", |outcome| outcome.as_str())
}

fn tell_judgement(judgement: &Judgement) {
    let Judgement { reason, counts, top, excepted, .. } = judgement;
    if !reason.is_empty() {
        say(format!("  because {reason}"));
    }
    for (severity, count) in counts.iter().rev() {
        say(format!("  {count} {severity}"));
    }
    for finding in top {
        say(format!("  {finding}"));
    }
    for id in excepted {
        say(format!("  {id} is taken out by an exception"));
    }
}
