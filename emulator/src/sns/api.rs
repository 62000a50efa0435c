//! The query protocol of SNS: a form-encoded body with an `Action`, answered in XML.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use uuid::Uuid;

use super::{Attribute, Publication, SnsError, Topics};
use crate::{
    iam::Gate,
    wire::{Answer, Caller, Dropped, MAX_FORM_BYTES, Request, Response, full},
};

/// The namespace of SNS's answers.
const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";

/// The SNS endpoint.
#[derive(Debug)]
pub struct Sns {
    topics: Arc<Topics>,
    gate: Arc<Gate>,
}

/// A form's fields.
type Form = BTreeMap<String, String>;

impl Sns {
    /// The endpoint of `topics`, guarded by `gate`.
    pub fn new(topics: Arc<Topics>, gate: Arc<Gate>) -> Self {
        Self { topics, gate }
    }

    /// Answers one call of `caller`; `None` is a stranger.
    ///
    /// # Errors
    ///
    /// [`Dropped`] when the request's body cannot be read.
    pub async fn handle(&self, caller: Option<Caller>, request: Request) -> Answer {
        let Ok(body) = Limited::new(request.into_body(), MAX_FORM_BYTES).collect().await else {
            return Err(Dropped);
        };
        let form: Form = form_urlencoded::parse(&body.to_bytes()).into_owned().collect();
        Ok(match self.call(caller, &form) {
            Ok(answer) => respond(StatusCode::OK, &answer),
            Err(error) => refuse(&error),
        })
    }

    fn call(&self, caller: Option<Caller>, form: &Form) -> Result<String, SnsError> {
        let caller = caller.ok_or(SnsError::Stranger)?;
        let action = form.get("Action").map(String::as_str).unwrap_or_default();
        if action != "Publish" {
            tracing::warn!("sns:{action} is not implemented");
            return Err(SnsError::UnknownAction { action: action.to_owned() });
        }
        let topic = form.get("TopicArn").or_else(|| form.get("TargetArn")).ok_or_else(|| {
            SnsError::Parameter("TopicArn or TargetArn Reason: no value for required parameter".to_owned())
        })?;
        self.gate.check(&caller, "sns:Publish", topic, &[])?;
        let published = self.topics.publish(
            topic,
            Publication {
                subject: form.get("Subject").cloned(),
                message: form.get("Message").cloned().unwrap_or_default(),
                structure: form.get("MessageStructure").cloned(),
                attributes: attributes(form)?,
            },
        )?;
        let (id, request) = (published.id, Uuid::new_v4());
        Ok(format!(
            "<PublishResponse xmlns=\"{NAMESPACE}\"><PublishResult><MessageId>{id}</MessageId></PublishResult>\
             <ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></PublishResponse>"
        ))
    }
}

/// `MessageAttributes.entry.N.Name`, `….Value.DataType` and `….Value.StringValue` or `….Value.BinaryValue`.
fn attributes(form: &Form) -> Result<BTreeMap<String, Attribute>, SnsError> {
    let mut attributes = BTreeMap::new();
    for number in 1.. {
        let field = |name: &str| form.get(&format!("MessageAttributes.entry.{number}.{name}")).cloned();
        let Some(name) = field("Name") else {
            break;
        };
        let data_type = field("Value.DataType").ok_or_else(|| SnsError::Attribute {
            name: name.clone(),
            reason: "must contain non-empty message attribute type.",
        })?;
        let value = field("Value.StringValue").or_else(|| field("Value.BinaryValue")).unwrap_or_default();
        attributes.insert(name, Attribute { data_type, value });
    }
    Ok(attributes)
}

fn respond(status: StatusCode, xml: &str) -> Response {
    let mut response = Response::new(full(format!("<?xml version=\"1.0\"?>\n{xml}")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    if let Ok(id) = HeaderValue::try_from(Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// The answer to a call that is refused, as the query protocol has it.
pub(crate) fn refuse(error: &SnsError) -> Response {
    let (status, code) = error.wire();
    let fault = if status.is_client_error() { "Sender" } else { "Receiver" };
    let (message, request) = (escape(&error.to_string()), Uuid::new_v4());
    respond(
        status,
        &format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{code}</Code>\
             <Message>{message}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"
        ),
    )
}

/// `text` as an XML element's content.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        account,
        iam::{Role, Statement},
        sns::tests::topics,
    };

    fn sns(folder: &tempfile::TempDir) -> Sns {
        let statement = json!({ "Effect": "Allow", "Action": "sns:Publish", "Resource": account::arn("sns", "told") });
        let role = Role {
            function: "Push".to_owned(),
            session: "gantry-Push".to_owned(),
            statements: vec![Statement::parse(&statement).unwrap()],
        };
        Sns::new(Arc::new(topics(folder.path()).0), Arc::new(Gate::new(vec![role])))
    }

    async fn call(sns: &Sns, caller: Option<&Caller>, fields: &[(&str, &str)]) -> (u16, String) {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = http::Request::post("/").body(full(body)).unwrap();
        let response = sns.handle(caller.cloned(), request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_message_is_published_with_everything_it_came_with() {
        let folder = tempfile::tempdir().unwrap();
        let sns = sns(&folder);
        let arn = account::arn("sns", "told");
        let fields = [
            ("Action", "Publish"),
            ("Version", "2010-03-31"),
            ("TopicArn", arn.as_str()),
            ("Subject", "[held] team/app"),
            ("Message", r#"{"default":"a + b & c"}"#),
            ("MessageStructure", "json"),
            ("MessageAttributes.entry.1.Name", "state"),
            ("MessageAttributes.entry.1.Value.DataType", "String"),
            ("MessageAttributes.entry.1.Value.StringValue", "held"),
            ("MessageAttributes.entry.2.Name", "raw"),
            ("MessageAttributes.entry.2.Value.DataType", "Binary"),
            ("MessageAttributes.entry.2.Value.BinaryValue", "AAA="),
        ];
        let (status, answer) = call(&sns, Some(&Caller::Role("Push".to_owned())), &fields).await;
        let messages = sns.topics.messages("told").unwrap();
        let message = &messages[0];
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains(&format!("<MessageId>{}</MessageId>", message.id)), "{answer}");
        assert_eq!(message.subject.as_deref(), Some("[held] team/app"));
        assert_eq!(message.text_for("email"), "a + b & c");
        assert_eq!(message.attributes["state"].value, "held");
        assert_eq!(message.attributes["raw"].data_type, "Binary");
    }

    #[tokio::test]
    async fn refusals_have_snss_codes() {
        let folder = tempfile::tempdir().unwrap();
        let sns = sns(&folder);
        let (told, other) = (account::arn("sns", "told"), account::arn("sns", "other"));
        let role = Caller::Role("Push".to_owned());
        let user = Some(&Caller::User);
        let publish = ("Action", "Publish");
        let cases: [(_, &[(&str, &str)], _, _); 7] = [
            (None, &[publish], 403, "InvalidClientTokenId"),
            (user, &[("Action", "CreateTopic")], 400, "InvalidAction"),
            (user, &[publish, ("Message", "m")], 400, "InvalidParameter"),
            (user, &[publish, ("TopicArn", &told)], 400, "InvalidParameter"),
            (user, &[publish, ("TopicArn", &other), ("Message", "m")], 404, "NotFound"),
            (Some(&role), &[publish, ("TopicArn", &other), ("Message", "m")], 403, "AuthorizationError"),
            (
                user,
                &[publish, ("TopicArn", &told), ("Message", "m"), ("MessageAttributes.entry.1.Name", "a")],
                400,
                "ParameterValueInvalid",
            ),
        ];
        for (caller, fields, status, code) in cases {
            let (got, answer) = call(&sns, caller, fields).await;
            assert_eq!(got, status, "{answer}");
            assert!(answer.contains(&format!("<Code>{code}</Code>")), "{answer}");
        }
        assert!(sns.topics.messages("told").unwrap().is_empty());
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
