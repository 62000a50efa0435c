//! The matrix as data: steps, faults, which pairs make no sense and why, and how a delivery that meets one ends.

use std::time::Duration;

use emulator::faults::{Action, Hold};
use gantry::timeouts::Timeouts;

use crate::lab::IMPATIENT;

/// What answers at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    S3,
    Ecr,
    Registry,
    Events,
    Sns,
}

/// One step of an import.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) peer: Peer,
    pub(crate) operation: &'static str,
    /// Which calls of it; `{}` is the repository.
    pub(crate) resource: Option<&'static str>,
    /// How many go well first.
    pub(crate) skip: usize,
    pub(crate) traits: &'static [Trait],
}

/// What decides about a step's pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trait {
    /// Its answer has a body that is read.
    AnswerBody,
    /// Its answer's `Location` is followed.
    Location,
    /// Its answer has a `Docker-Content-Digest` that import holds against its own.
    Digest,
    /// Its request has a body, of which so much (in percent) arrives before something happens.
    RequestBody(u64),
    /// It has no body of its own that the other positions do not have too: faults without a position are theirs.
    PositionOnly,
    /// It is tried again, whatever the status.
    Resent,
    /// It comes after the tags.
    AfterTags,
    /// The tags' own.
    Tags,
    /// It comes after the last look at which version counts.
    TooLateForAnother,
    /// It is asked for a document that need not be there: 404 is an answer.
    MayBeAbsent,
    /// It reads the object: 404 says that it is gone.
    IsTheObject,
    /// Nothing depends on it.
    Courtesy,
    /// Whether it was done can be asked.
    Closing,
    /// It writes a document on a condition.
    Conditional,
}

use Peer::{Ecr, Events, Registry, S3, Sns};
use Trait::{
    AfterTags, AnswerBody, Closing, Conditional, Courtesy, Digest, IsTheObject, Location, MayBeAbsent, PositionOnly,
    RequestBody, Resent, Tags, TooLateForAnother,
};

const fn step(
    name: &'static str,
    peer: Peer,
    operation: &'static str,
    resource: Option<&'static str>,
    skip: usize,
    traits: &'static [Trait],
) -> Step {
    Step { name, peer, operation, resource, skip, traits }
}

/// In the order in which an import comes to them.
pub(crate) static STEPS: &[Step] = &[
    step("look at the object", S3, "s3:HeadObject", Some("uploads/*.tar"), 0, &[IsTheObject]),
    step("read a header's range", S3, "s3:GetObject", Some("uploads/*.tar"), 0, &[AnswerBody, IsTheObject, Resent]),
    step("read a layer's range", S3, "s3:GetObject", Some("uploads/*.tar"), 2, &[AnswerBody, IsTheObject, Resent]),
    step("write the first receipt", S3, "s3:PutObject", Some("uploads/*.receipt.json"), 0, &[Conditional]),
    step("set the object's tags", S3, "s3:PutObjectTagging", Some("uploads/*.tar"), 0, &[Courtesy]),
    step("look for the repository", Ecr, "ecr:DescribeRepositories", None, 0, &[AnswerBody]),
    step("make the repository", Ecr, "ecr:CreateRepository", None, 0, &[AnswerBody]),
    step("set its lifecycle policy", Ecr, "ecr:PutLifecyclePolicy", None, 0, &[AnswerBody]),
    step("get a token", Ecr, "ecr:GetAuthorizationToken", None, 0, &[AnswerBody]),
    step("read the ledger", S3, "s3:GetObject", Some("state/ledger/*"), 0, &[MayBeAbsent]),
    step("ask for a blob", Registry, "registry:HeadBlob", Some("{}/blobs/*"), 0, &[MayBeAbsent]),
    step("begin a session", Registry, "registry:StartUpload", Some("{}/blobs/*"), 0, &[Location, Resent]),
    step("send the body", Registry, "registry:PatchUpload", Some("{}/blobs/*"), 0, &[Location, Resent]),
    step(
        "send the body's first byte",
        Registry,
        "registry:PatchUpload",
        Some("{}/blobs/*"),
        0,
        &[RequestBody(0), PositionOnly, Resent],
    ),
    step(
        "send a byte in the middle",
        Registry,
        "registry:PatchUpload",
        Some("{}/blobs/*"),
        1,
        &[RequestBody(50), PositionOnly, Resent],
    ),
    step(
        "send the body's last byte",
        Registry,
        "registry:PatchUpload",
        Some("{}/blobs/*"),
        0,
        &[RequestBody(100), PositionOnly, Resent],
    ),
    step("close the blob", Registry, "registry:PutUpload", Some("{}/blobs/*"), 0, &[Resent, Closing]),
    step("write the ledger", S3, "s3:PutObject", Some("state/ledger/*"), 0, &[Conditional]),
    step("write the image's record", S3, "s3:PutObject", Some("state/images/*"), 0, &[Conditional, TooLateForAnother]),
    step(
        "put the manifest",
        Registry,
        "registry:PutManifest",
        Some("{}/manifests/sha256:*"),
        0,
        &[Digest, Resent, TooLateForAnother],
    ),
    step(
        "set the tag",
        Registry,
        "registry:PutManifest",
        Some("{}/manifests/1.0.0*"),
        0,
        &[Digest, Resent, Tags, TooLateForAnother],
    ),
    step(
        "write the last receipt",
        S3,
        "s3:PutObject",
        Some("uploads/*.receipt.json"),
        1,
        &[Conditional, AfterTags, TooLateForAnother],
    ),
    step("tell programs", Events, "events:PutEvents", None, 0, &[AnswerBody, AfterTags, TooLateForAnother]),
    step("tell people", Sns, "sns:Publish", None, 0, &[AnswerBody, AfterTags, TooLateForAnother]),
];

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Status(u16),
    Reset,
    /// The call is handled, and nobody hears of it.
    AnswerLost,
    Stall,
    ShortBody,
    WrongLocation,
    StaleRange,
    WrongDigest,
    SlowDrip,
    ExpiredToken,
    /// The same event is delivered once more while this delivery is at the step.
    Duplicate,
    /// A newer version of the object comes while this delivery is at the step.
    Overwritten,
}

/// All of them.
pub(crate) static TROUBLES: &[Trouble] = &[
    Trouble::Status(400),
    Trouble::Status(401),
    Trouble::Status(403),
    Trouble::Status(404),
    Trouble::Status(416),
    Trouble::Status(429),
    Trouble::Status(500),
    Trouble::Status(503),
    Trouble::Reset,
    Trouble::AnswerLost,
    Trouble::Stall,
    Trouble::ShortBody,
    Trouble::WrongLocation,
    Trouble::StaleRange,
    Trouble::WrongDigest,
    Trouble::SlowDrip,
    Trouble::ExpiredToken,
    Trouble::Duplicate,
    Trouble::Overwritten,
];

/// How often it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    /// As long as the delivery lasts.
    Always,
}

/// How the delivery that meets it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The image is in ECR all the same.
    Done,
    /// Transient: it comes again.
    Later,
    /// Another version won, or the object is gone.
    Superseded,
}

impl Step {
    pub(crate) fn is(&self, wanted: Trait) -> bool {
        self.traits.contains(&wanted)
    }

    /// How much of the request's body arrives, in percent.
    pub(crate) fn position(&self) -> Option<u64> {
        self.traits.iter().find_map(|one| if let RequestBody(percent) = one { Some(*percent) } else { None })
    }

    /// Why the pair makes no sense, if it does not.
    pub(crate) fn senseless(&self, trouble: Trouble, times: Times) -> Option<&'static str> {
        let once_only = matches!(trouble, Trouble::Duplicate | Trouble::Overwritten);
        let has_position = self.position().is_some();
        match trouble {
            _ if once_only && times == Times::Always => Some("it is one event, not a state"),
            _ if has_position && !matches!(trouble, Trouble::Reset | Trouble::Stall) => {
                Some("it does not depend on how much of the body arrived: the step of the whole body has it")
            }
            Trouble::ShortBody | Trouble::SlowDrip if !self.is(AnswerBody) => {
                Some("nothing of its answer's body is read")
            }
            Trouble::WrongLocation if !self.is(Location) => Some("no Location of its answer is followed"),
            Trouble::StaleRange if !self.is(Location) => Some("only answers to uploads have a Range"),
            Trouble::WrongDigest if !self.is(Digest) => Some("its answer has no digest that import goes by"),
            Trouble::Overwritten if self.is(TooLateForAnother) => {
                Some("it comes after the last look at which version counts; the later upload meets its tag")
            }
            _ => None,
        }
    }

    /// How a delivery ends that meets the trouble here.
    pub(crate) fn end(&self, trouble: Trouble, times: Times) -> End {
        let once = times == Times::Once;
        match trouble {
            Trouble::Duplicate | Trouble::StaleRange => End::Done,
            Trouble::Overwritten => End::Superseded,
            _ if self.is(Courtesy) => End::Done,
            Trouble::Status(404) if self.is(IsTheObject) => End::Superseded,
            Trouble::Status(404) if self.is(MayBeAbsent) => End::Done,
            // A HEAD's answer has no body to name the code by; S3 itself says 503, which needs none.
            Trouble::Status(429) if self.operation == "s3:HeadObject" => End::Later,
            // What is asked for is not there: it is made, and asked for no more.
            Trouble::Status(404) if self.operation == "ecr:DescribeRepositories" => End::Done,
            // What is there already says so by its refusal, whatever it was said to be.
            Trouble::WrongDigest if self.is(Tags) => End::Done,
            // Whether it is there is asked before anything is sent again.
            Trouble::AnswerLost if self.is(Closing) => End::Done,
            // Whoever read the document has deleted it, as far as a conditional write can tell: it is written anew.
            Trouble::Status(404) if once && self.is(Conditional) => End::Done,
            _ if !once => End::Later,
            // A blob is sent again from its first byte, a range is read on, and a manifest is put again, whatever was in
            // the way.
            _ if self.is(Resent) => End::Done,
            Trouble::ExpiredToken | Trouble::Status(401 | 403) if self.peer == Registry => End::Done,
            Trouble::Status(400 | 401 | 403 | 404 | 416) | Trouble::ExpiredToken => End::Later,
            _ => End::Done,
        }
    }

    /// Who waits for an answer that does not come needs short timeouts; who does not must not take a busy machine for
    /// trouble.
    pub(crate) fn timeouts(trouble: Trouble) -> Timeouts {
        match trouble {
            Trouble::Stall | Trouble::SlowDrip => IMPATIENT,
            _ => Timeouts {
                first_pause: IMPATIENT.first_pause,
                longest_pause: IMPATIENT.longest_pause,
                ..Timeouts::default()
            },
        }
    }

    /// What the emulator does; `body_bytes` is the size of the blob that is sent.
    pub(crate) fn action(&self, trouble: Trouble, body_bytes: u64, hold: &Hold) -> Action {
        let header = |name: &str, value: &str| {
            Action::Header(name.parse().expect("a header"), value.parse().expect("a header's value"))
        };
        let at = self.position().map(|percent| (body_bytes * percent / 100).min(body_bytes.saturating_sub(1)));
        match (trouble, at) {
            (Trouble::Reset, Some(bytes)) => Action::DropAfterRequestBytes(bytes),
            (Trouble::Stall, Some(bytes)) => Action::StallAfterRequestBytes(bytes),
            (Trouble::Reset, None) => Action::Reset,
            (Trouble::Stall, None) => Action::Stall,
            (Trouble::AnswerLost, _) => Action::CloseAfterHandling,
            (Trouble::Status(status), _) => Action::Status(status, self.body_of(status)),
            (Trouble::ShortBody, _) => Action::ShortBody(10),
            (Trouble::WrongLocation, _) => header("location", "http://192.0.2.1/steal"),
            (Trouble::StaleRange, _) => header("range", "0-9"),
            (Trouble::WrongDigest, _) => header("docker-content-digest", &format!("sha256:{}", "0".repeat(64))),
            (Trouble::SlowDrip, _) => Action::Drip(Duration::from_millis(300)),
            (Trouble::ExpiredToken, _) => match self.peer {
                Registry => Action::Status(
                    403,
                    r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#.to_owned(),
                ),
                S3 => Action::Status(400, s3_error("ExpiredToken")),
                Sns => Action::Status(403, query_error("ExpiredToken")),
                Ecr | Events => Action::Status(400, json_error("ExpiredTokenException")),
            },
            (Trouble::Duplicate | Trouble::Overwritten, _) => Action::Hold(hold.clone()),
        }
    }

    /// What the service says with a status, as it says it.
    fn body_of(&self, status: u16) -> String {
        match (self.peer, status) {
            (_, 500 | 503) => String::new(),
            (S3, 400) => s3_error("BadRequest"),
            (S3, 401 | 403) => s3_error("AccessDenied"),
            (S3, 404) => s3_error("NoSuchKey"),
            (S3, 416) => s3_error("InvalidRange"),
            (S3, _) => s3_error("SlowDown"),
            (Ecr | Events, 401 | 403) => json_error("AccessDeniedException"),
            (Ecr | Events, 404) => json_error("RepositoryNotFoundException"),
            (Ecr | Events, 429) => json_error("ThrottlingException"),
            (Ecr | Events, _) => json_error("InvalidParameterException"),
            (Sns, 401 | 403) => query_error("AuthorizationError"),
            (Sns, 429) => query_error("ThrottledException"),
            (Sns, _) => query_error("InvalidParameter"),
            (Registry, 401) => "Not Authorized".to_owned(),
            (Registry, 403) => registry_error("DENIED"),
            (Registry, 404) => registry_error("NAME_UNKNOWN"),
            (Registry, 416) => registry_error("BLOB_UPLOAD_INVALID"),
            (Registry, 429) => registry_error("TOOMANYREQUESTS"),
            (Registry, _) => registry_error("UNKNOWN"),
        }
    }
}

fn s3_error(code: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"#
    )
}

fn json_error(code: &str) -> String {
    format!(r#"{{"__type":"{code}","message":"as the test wants it"}}"#)
}

fn query_error(code: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>as the test wants it</Message></Error></ErrorResponse>"
    )
}

fn registry_error(code: &str) -> String {
    format!(r#"{{"errors":[{{"code":"{code}","message":"as the test wants it"}}]}}"#)
}
