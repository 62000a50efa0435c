//! SNS topics and their subscriptions.

use serde_json::Value;

use super::{FilterScope, Subscription, TemplateError, Topic, resolve::text, resources::Resource};

impl Resource {
    /// The topic, with the subscriptions that it declares itself.
    pub(super) fn topic(&self) -> Result<Topic, TemplateError> {
        if self.text("/FifoTopic").is_some_and(|fifo| fifo == "true") {
            return Err(self.unsupported("a FIFO topic"));
        }
        let own = match self.properties.get("Subscription") {
            None => &[][..],
            Some(Value::Array(list)) => list.as_slice(),
            Some(_) => return Err(self.property("Subscription", "a list")),
        };
        let subscriptions = own.iter().map(|one| self.subscription_of(one)).collect::<Result<_, _>>()?;
        Ok(Topic { name: self.name.clone(), arn: self.arn()?, subscriptions })
    }

    /// The topic's ARN and the subscription of a resource of its own.
    pub(super) fn subscription(&self) -> Result<(String, Subscription), TemplateError> {
        let topic = self.text("/TopicArn").ok_or_else(|| self.property("TopicArn", "an ARN"))?;
        Ok((topic, self.subscription_of(&self.properties)?))
    }

    fn subscription_of(&self, properties: &Value) -> Result<Subscription, TemplateError> {
        let get = |name: &str| properties.get(name).and_then(text);
        let filter = match properties.get("FilterPolicy") {
            // CloudFormation takes the policy as JSON text too.
            Some(Value::String(policy)) => {
                Some(serde_json::from_str(policy).ok().ok_or_else(|| self.property("FilterPolicy", "JSON"))?)
            }
            other => other.cloned(),
        };
        Ok(Subscription {
            protocol: get("Protocol").ok_or_else(|| self.property("Protocol", "a protocol"))?,
            endpoint: get("Endpoint").unwrap_or_default(),
            filter,
            filter_scope: match get("FilterPolicyScope").as_deref() {
                None | Some("MessageAttributes") => FilterScope::Attributes,
                Some("MessageBody") => FilterScope::Body,
                Some(_) => return Err(self.property("FilterPolicyScope", "MessageAttributes or MessageBody")),
            },
        })
    }
}
