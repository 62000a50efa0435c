//! What resources say of each other, put together when all of them are read.

use std::collections::BTreeMap;

use super::{Schedule, Subscription, Template, TemplateError, resources::Resource};
use crate::iam::Statement;

/// Loose ends.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Of queue policies, by the queue's URL.
    pub(super) queue_policies: BTreeMap<String, Vec<Statement>>,
    /// By the topic's ARN.
    pub(super) subscriptions: Vec<(String, Subscription)>,
    /// The scheduled rule's logical id, the function's ARN and its schedule.
    pub(super) schedules: Vec<(String, String, Schedule)>,
    /// By ARN. Those that no role has are people's, and may say what is not understood here.
    pub(super) managed_policies: BTreeMap<String, Resource>,
    /// Statements of roles and the ARNs of their managed policies, by the role's ARN.
    pub(super) roles: BTreeMap<String, (Vec<Statement>, Vec<String>)>,
    /// Functions' logical ids, each with the ARN of a managed policy or of its role.
    pub(super) attached: Vec<(String, String)>,
}

impl Links {
    /// Reads a resource that is only there for others; whether it is one.
    pub(super) fn read(&mut self, resource: &Resource) -> Result<bool, TemplateError> {
        match resource.kind.as_str() {
            "AWS::SQS::QueuePolicy" => {
                for (url, statements) in resource.queue_policy()? {
                    self.queue_policies.entry(url).or_default().extend(statements);
                }
            }
            "AWS::SNS::Subscription" => self.subscriptions.push(resource.subscription()?),
            "AWS::IAM::ManagedPolicy" => {
                self.managed_policies.insert(resource.arn()?, resource.clone());
            }
            "AWS::IAM::Role" => {
                self.roles.insert(resource.arn()?, resource.role()?);
            }
            "AWS::Events::Rule" if resource.is_scheduled() => self.schedules.extend(resource.scheduled()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Gives everything to the resource that it is for.
    pub(super) fn tie(mut self, template: &mut Template) -> Result<(), TemplateError> {
        for queue in template.queues.values_mut() {
            queue.policy = self.queue_policies.remove(&queue.url).unwrap_or_default();
        }
        for (arn, subscription) in self.subscriptions {
            // A topic of another stack is nobody's here.
            if let Some(topic) = template.topics.values_mut().find(|topic| topic.arn == arn) {
                topic.subscriptions.push(subscription);
            }
        }
        let unsupported = |logical_id, what| TemplateError::Unsupported { logical_id, what };
        for (logical_id, function_arn, schedule) in self.schedules {
            let function = template.functions.values_mut().find(|function| function.arn == function_arn);
            let what = format!("the schedule's target {function_arn}");
            function.ok_or_else(|| unsupported(logical_id, what))?.schedules.push(schedule);
        }
        for (logical_id, arn) in self.attached {
            let own = (Vec::new(), vec![arn.clone()]);
            let (mut statements, managed) = self.roles.get(&arn).cloned().unwrap_or(own);
            for arn in managed {
                let policy = self.managed_policies.get(&arn);
                let policy = policy.ok_or_else(|| unsupported(logical_id.clone(), format!("the policy {arn}")))?;
                statements.extend(policy.document()?);
            }
            if let Some(function) = template.functions.get_mut(&logical_id) {
                function.statements.extend(statements);
            }
        }
        Ok(())
    }
}
