//! The default event bus: `PutEvents`, rules with event patterns, and delivery to queues.

mod api;
mod pattern;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc::UnboundedReceiver};
use tokio_util::sync::CancellationToken;

pub use api::Events;
pub use pattern::{Pattern, PatternError};

use crate::{
    account,
    iam::{self, Statement},
    sqs::{Extras, Queues, SqsError},
    template::{Rule, Target, Template},
};

/// How many events a slow watcher may be behind before it misses some.
const WATCHED: usize = 4096;

/// The principal in queue policies that let EventBridge send.
const SERVICE: &str = "events.amazonaws.com";

/// Why a rule cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the event pattern of the rule {rule} cannot be used")]
pub struct RuleError {
    /// The rule's logical id.
    pub rule: String,
    /// What is wrong with its pattern.
    pub source: PatternError,
}

/// The bus with its rules.
#[derive(Debug)]
pub struct Bus {
    rules: Vec<(Pattern, Rule)>,
    policies: Vec<(String, Vec<Statement>)>,
    queues: Arc<Queues>,
    watchers: broadcast::Sender<Arc<Value>>,
}

impl Bus {
    /// The bus that `template` describes, delivering to `queues`.
    ///
    /// # Errors
    ///
    /// [`RuleError`] for a pattern that EventBridge would refuse or that is not known here.
    pub fn new(template: &Template, queues: Arc<Queues>) -> Result<Self, RuleError> {
        let rules = template
            .rules
            .iter()
            .map(|(logical_id, rule)| {
                let pattern =
                    Pattern::parse(&rule.pattern).map_err(|source| RuleError { rule: logical_id.clone(), source })?;
                Ok((pattern, rule.clone()))
            })
            .collect::<Result<_, RuleError>>()?;
        let policies = template.queues.values().map(|queue| (queue.arn.clone(), queue.policy.clone())).collect();
        Ok(Self { rules, policies, queues, watchers: broadcast::Sender::new(WATCHED) })
    }

    /// Where every event goes once it was handed to the rules' targets, whether a rule matched or not.
    pub fn watchers(&self) -> broadcast::Sender<Arc<Value>> {
        self.watchers.clone()
    }

    /// Delivers what comes through `events` until `stopping`, and then what has come by then.
    pub async fn run(&self, mut events: UnboundedReceiver<Value>, stopping: CancellationToken) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = stopping.cancelled() => break,
            };
            let Some(event) = event else { return };
            self.pass(event);
        }
        while let Ok(event) = events.try_recv() {
            self.pass(event);
        }
    }

    fn pass(&self, event: Value) {
        self.deliver(&event);
        // Nobody may be watching.
        let _watched = self.watchers.send(Arc::new(event));
    }

    /// Hands `event` to the targets of every rule whose pattern it matches.
    ///
    /// What a target does not take goes to the target's dead-letter queue, and is lost without one,
    /// as EventBridge does it (user guide, eb-rule-dlq); the retries in between are left out, since
    /// on one machine they would fail the same way.
    pub fn deliver(&self, event: &Value) {
        let matching = self.rules.iter().filter(|(pattern, _)| pattern.matches(event));
        for (_, rule) in matching {
            for target in &rule.targets {
                let Err(refused) = self.hand_over(event, rule, &target.arn, Extras::default()) else {
                    continue;
                };
                tracing::warn!(target.arn = target.arn, "an event could not be delivered: {}", refused.message);
                self.bury(event, rule, target, &refused);
            }
        }
    }

    fn bury(&self, event: &Value, rule: &Rule, target: &Target, refused: &Refused) {
        let Some(dead_letters) = &target.dead_letter_arn else {
            return;
        };
        let attributes = [
            ("RULE_ARN", rule.arn.as_str()),
            ("TARGET_ARN", target.arn.as_str()),
            ("ERROR_CODE", refused.code),
            ("ERROR_MESSAGE", refused.message.as_str()),
        ];
        let extras = Extras {
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), json!({ "DataType": "String", "StringValue": value })))
                .collect(),
            ..Extras::default()
        };
        if let Err(refused) = self.hand_over(event, rule, dead_letters, extras) {
            tracing::error!(target.arn = dead_letters, "an undelivered event is lost: {}", refused.message);
        }
    }

    fn hand_over(&self, event: &Value, rule: &Rule, queue_arn: &str, extras: Extras) -> Result<(), Refused> {
        let name = self.queues.name(queue_arn).map_err(Refused::from)?;
        let statements: Vec<Statement> = self
            .policies
            .iter()
            .filter(|(arn, _)| arn == queue_arn)
            .flat_map(|(_, statements)| statements)
            .filter(|statement| statement.names_service(SERVICE))
            .cloned()
            .collect();
        let context = [("aws:SourceArn", rule.arn.as_str()), ("aws:SourceAccount", account::ID)];
        let context = context.map(|(key, value)| (key.to_owned(), value.to_owned()));
        if !iam::allows(&statements, "sqs:SendMessage", queue_arn, &context) {
            return Err(Refused {
                code: "NO_PERMISSIONS",
                message: format!("the policy of {queue_arn} does not let {SERVICE} send for {}", rule.arn),
            });
        }
        self.queues.send(&name, &event.to_string(), extras).map_err(Refused::from)?;
        Ok(())
    }
}

/// Why a queue did not take an event.
#[derive(Debug)]
struct Refused {
    code: &'static str,
    message: String,
}

impl From<SqsError> for Refused {
    fn from(error: SqsError) -> Self {
        Self {
            code: match error {
                SqsError::NoQueue => "NO_RESOURCE",
                _ => "SDK_CLIENT_ERROR",
            },
            message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sqs::Waits;

    const TEMPLATE: &str = include_str!("../../template.yaml");

    fn event(key: &str) -> Value {
        json!({
            "source": "aws.s3", "detail-type": "Object Created",
            "detail": { "bucket": { "name": "uploads" }, "object": { "key": key } },
        })
    }

    /// Delivers an upload by the project's template, changed by `change`.
    fn deliver(key: &str, change: impl Fn(&mut Template)) -> (usize, Vec<crate::sqs::Message>) {
        let folder = tempfile::tempdir().unwrap();
        let mut template = Template::read(TEMPLATE, &BTreeMap::new(), "http://127.0.0.1:1").unwrap();
        change(&mut template);
        let settings = template.queues.values().cloned();
        let queues = Queues::open(folder.path().to_owned(), settings, Waits::Real).unwrap();
        let queues = Arc::new(queues);
        let bus = Bus::new(&template, Arc::clone(&queues)).unwrap();
        bus.deliver(&event(key));
        (queues.messages("import-queue").unwrap().len(), queues.messages("undelivered-events").unwrap())
    }

    #[test]
    fn uploads_reach_the_queue_and_receipts_do_not() {
        for (key, want) in [("team/app/1.tar", 1), ("no-archive", 1), ("team/app/1.tar.receipt.json", 0), ("team/", 0)]
        {
            let (delivered, undelivered) = deliver(key, |_| {});
            assert_eq!((delivered, undelivered.len()), (want, 0), "{key}");
        }
    }

    #[test]
    fn what_the_queue_does_not_take_is_undelivered() {
        let (delivered, undelivered) = deliver("a.tar", |template| {
            template.queues.get_mut("ImportQueue").unwrap().policy.clear();
        });
        assert_eq!(delivered, 0);
        assert_eq!(undelivered[0].body, event("a.tar").to_string());
        assert_eq!(undelivered[0].attributes["ERROR_CODE"]["StringValue"], "NO_PERMISSIONS");
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut template = Template::read(TEMPLATE, &BTreeMap::new(), "http://127.0.0.1:1").unwrap();
        template.rules.get_mut("UploadRule").unwrap().pattern = json!({ "source": "aws.s3" });
        let queues = Queues::open(folder.path().to_owned(), [], Waits::Real).unwrap();
        let error = Bus::new(&template, Arc::new(queues)).unwrap_err();
        assert_eq!(error.to_string(), "the event pattern of the rule UploadRule cannot be used");
    }
}
