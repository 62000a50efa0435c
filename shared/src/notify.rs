//! Telling people and programs: events on the bus (source `gantry`), and messages of the topic.
//!
//! Both carry the same `detail`, whose fields are only ever added. Who tells a fact claims it first, in the image's
//! record or in the receipt, so that each is told once; the `id` is made from the fact, so that a duplicate after a
//! crash has the same one.

mod detail;
mod text;

use std::collections::BTreeMap;

use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_types::error::operation::BuildError;
use serde_json::json;

use crate::aws::CallError;
use crate::config::CommonConfig;
use crate::disposition::Disposition;
use crate::image::Digest;
use crate::retry::Disposed;
use crate::version::VERSION;

pub use detail::{Detail, ImageDetail, ReasonDetail, UploadDetail, VerdictDetail};

/// The source of our events.
pub const SOURCE: &str = "gantry";

/// The detail type of an upload that is in ECR; on-push looks at its images again.
pub const IMAGE_IMPORTED: &str = "Image Imported";

/// Longest subject, in characters (SNS API reference, `Publish`: less than 100).
const SUBJECT_CHARS: usize = 99;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetailType {
    /// An upload is in ECR under its tag.
    ImageImported,
    /// An upload came to nothing.
    ImportFailed,
    /// An image may be used.
    ImageReleased,
    /// An image is in ECR, and must not be used.
    ImageHeld,
    /// The verdict of a released image is another one now.
    VerdictChanged,
    /// The policy file is not used, or an exception ends.
    PolicyProblem,
}

impl DetailType {
    /// As the bus has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageImported => IMAGE_IMPORTED,
            Self::ImportFailed => "Import Failed",
            Self::ImageReleased => "Image Released",
            Self::ImageHeld => "Image Held",
            Self::VerdictChanged => "Verdict Changed",
            Self::PolicyProblem => "Policy Problem",
        }
    }
}

/// One fact, ready to be told.
#[derive(Debug, Clone)]
pub struct Notice {
    /// What it is about.
    pub detail_type: DetailType,
    /// What makes it this fact and no other; the id is made from it.
    pub fact: String,
    /// The state it speaks of: of the upload, of the image, or `policy`.
    pub state: &'static str,
    /// Whether somebody has to act.
    pub needs_a_person: bool,
    /// The image.
    pub image: Option<ImageDetail>,
    /// The upload.
    pub upload: Option<UploadDetail>,
    /// Why, and what to do.
    pub reason: Option<ReasonDetail>,
    /// What the policy says.
    pub verdict: Option<VerdictDetail>,
    /// One sentence: what happened.
    pub headline: String,
}

/// Why people could not be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The bus took the call and not the event.
    #[error("the event bus refused the event {detail_type:?} ({code}): {message}")]
    Refused {
        /// The event's name.
        detail_type: &'static str,
        /// EventBridge's code.
        code: String,
        /// What it says.
        message: String,
    },
    /// A request lacks something; a mistake of ours.
    #[error("a message could not be built")]
    Build(#[from] BuildError),
}

impl Disposed for NotifyError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Call(call) => call.disposition(),
            Self::Refused { .. } | Self::Build(_) => Disposition::Transient,
        }
    }
}

impl NotifyError {
    /// The call that was denied, when that is what is wrong.
    pub fn denied_call(&self) -> Option<&CallError> {
        match self {
            Self::Call(call) if call.is_denied() => Some(call),
            Self::Call(_) | Self::Refused { .. } | Self::Build(_) => None,
        }
    }
}

/// Tells facts on the default bus and on the stack's topic.
#[derive(Debug, Clone)]
pub struct Notifier {
    events: aws_sdk_eventbridge::Client,
    sns: aws_sdk_sns::Client,
    topic_arn: String,
    stack: String,
}

impl Notifier {
    /// A notifier for the stack of `config`.
    pub fn new(events: aws_sdk_eventbridge::Client, sns: aws_sdk_sns::Client, config: &CommonConfig) -> Self {
        Self { events, sns, topic_arn: config.topic_arn.clone(), stack: config.stack.clone() }
    }

    /// Tells `notice`: an event, then a message. Two requests.
    ///
    /// # Errors
    ///
    /// [`NotifyError`], transient; the event may be out then, and comes again with the same id.
    pub async fn tell(&self, notice: &Notice) -> Result<(), NotifyError> {
        let detail = self.detail(notice);
        self.put_event(notice.detail_type, &detail).await?;
        self.publish(notice, &detail).await?;
        let (fact, kind) = (notice.fact.as_str(), notice.detail_type.as_str());
        tracing::info!(fact, event = kind, state = notice.state, "told");
        Ok(())
    }

    fn detail(&self, notice: &Notice) -> Detail {
        let name = format!("{}\n{}\n{}", self.stack, notice.detail_type.as_str(), notice.fact);
        let mut id = Digest::of(name.as_bytes()).hex();
        id.truncate(32);
        Detail {
            schema: 1,
            id,
            stack: self.stack.clone(),
            version: VERSION.to_owned(),
            state: notice.state.to_owned(),
            image: notice.image.clone().map(ImageDetail::bounded),
            upload: notice.upload.clone(),
            reason: notice.reason.clone(),
            verdict: notice.verdict.clone(),
        }
    }

    async fn put_event(&self, detail_type: DetailType, detail: &Detail) -> Result<(), NotifyError> {
        let detail_type = detail_type.as_str();
        let entry = PutEventsRequestEntry::builder()
            .source(SOURCE)
            .detail_type(detail_type)
            .detail(json!(detail).to_string())
            .set_resources(detail.image.as_ref().and_then(|image| image.arn.clone()).map(|arn| vec![arn]));
        let answer = self.events.put_events().entries(entry.build()).send().await;
        let answer = answer.map_err(|error| CallError::new("events:PutEvents", "event-bus/default", error))?;
        // 200 with an entry that failed is an answer too.
        match answer.entries().iter().find(|entry| entry.error_code().is_some()) {
            None => Ok(()),
            Some(refused) => Err(NotifyError::Refused {
                detail_type,
                code: refused.error_code().unwrap_or_default().to_owned(),
                message: refused.error_message().unwrap_or_default().to_owned(),
            }),
        }
    }

    async fn publish(&self, notice: &Notice, detail: &Detail) -> Result<(), NotifyError> {
        let text = text::of(notice, &self.stack);
        let machine =
            json!({"source": SOURCE, "detail-type": notice.detail_type.as_str(), "detail": detail}).to_string();
        let message = json!({
            "default": text, "email": text,
            "email-json": machine, "sqs": machine, "lambda": machine, "http": machine, "https": machine,
            "firehose": machine,
        });
        let repository = notice.image.as_ref().map_or("none", |image| image.repository.as_str());
        let severity = notice.verdict.as_ref().and_then(|verdict| verdict.worst).map_or("none", |worst| worst.as_str());
        let mut attributes = BTreeMap::from([
            ("event", notice.detail_type.as_str()),
            ("state", notice.state),
            ("repository", repository),
            ("severity", severity),
        ]);
        attributes.insert("needs", if notice.needs_a_person { "person" } else { "nobody" });
        let mut publish = self
            .sns
            .publish()
            .topic_arn(&self.topic_arn)
            .subject(subject(notice))
            .message_structure("json")
            .message(message.to_string());
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build()?;
            publish = publish.message_attributes(name, value);
        }
        publish.send().await.map_err(|error| CallError::new("sns:Publish", self.topic_arn.as_str(), error))?;
        Ok(())
    }
}

/// `Image Held: team/app:1.4.2`; ASCII, without control characters, short enough for SNS.
fn subject(notice: &Notice) -> String {
    let what = match (&notice.image, &notice.upload) {
        (Some(image), _) => image.name(),
        (None, Some(upload)) => upload.key.clone(),
        (None, None) => notice.headline.clone(),
    };
    let subject = format!("{}: {what}", notice.detail_type.as_str());
    let plain = subject.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    plain.take(SUBJECT_CHARS).collect()
}

#[cfg(test)]
mod tests;
