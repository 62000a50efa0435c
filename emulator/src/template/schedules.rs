//! Schedules: rules with a rate, and the events of SAM functions that are one.

use std::time::Duration;

use serde_json::{Value, json};

use super::{TemplateError, resolve::text, resources::Resource};
use crate::{account, envelope::envelope};

/// When a function runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The ARN of the rule or schedule.
    pub arn: String,
    /// How often.
    pub every: Duration,
    /// What runs it.
    pub scheduler: Scheduler,
    /// What the function gets instead of the scheduled event.
    pub input: Option<Value>,
}

/// What runs a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// A rule of EventBridge.
    Rule,
    /// EventBridge Scheduler.
    Scheduler,
}

impl Schedule {
    /// What the function is invoked with now: the EventBridge user guide, "Creating a rule that runs on
    /// a schedule", or the Scheduler user guide, "Templated targets", whose `detail` is a text.
    pub fn event(&self) -> Value {
        if let Some(input) = &self.input {
            return input.clone();
        }
        let (source, detail) = match self.scheduler {
            Scheduler::Rule => ("aws.events", json!({})),
            Scheduler::Scheduler => ("aws.scheduler", json!("{}")),
        };
        envelope(source, "Scheduled Event", std::slice::from_ref(&self.arn), &detail)
    }
}

impl Resource {
    /// Whether the rule has a schedule instead of an event pattern.
    pub(super) fn is_scheduled(&self) -> bool {
        self.properties.get("ScheduleExpression").is_some()
    }

    /// Of a scheduled rule, for each target the rule's logical id, the function's ARN and its schedule.
    pub(super) fn scheduled(&self) -> Result<Vec<(String, String, Schedule)>, TemplateError> {
        let targets = match self.properties.get("Targets") {
            Some(Value::Array(targets)) => targets.as_slice(),
            _ => return Err(self.property("Targets", "a list")),
        };
        let mut schedules = Vec::new();
        for target in targets {
            let function = target.get("Arn").and_then(text).ok_or_else(|| self.property("Targets.Arn", "an ARN"))?;
            let mut properties = self.properties.clone();
            properties["Input"] = target.get("Input").cloned().unwrap_or_default();
            let every = self.rate("ScheduleExpression", &properties)?;
            schedules.extend(
                self.enabled(&properties, self.arn()?, every, Scheduler::Rule)?
                    .map(|schedule| (self.logical_id.clone(), function, schedule)),
            );
        }
        Ok(schedules)
    }

    /// The schedule that the event `name` of the function is; `None` when it is switched off.
    pub(super) fn schedule(
        &self,
        name: &str,
        properties: &Value,
        scheduler: Scheduler,
    ) -> Result<Option<Schedule>, TemplateError> {
        // SAM names what it makes after the function and the event.
        let given = properties.get("Name").and_then(text);
        let name = given.unwrap_or_else(|| format!("{}-{}{name}", account::STACK, self.logical_id));
        let (arn, expression) = match scheduler {
            Scheduler::Rule => (account::arn("events", &format!("rule/{name}")), "Schedule"),
            Scheduler::Scheduler => {
                (account::arn("scheduler", &format!("schedule/default/{name}")), "ScheduleExpression")
            }
        };
        let every = self.rate(expression, properties)?;
        self.enabled(properties, arn, every, scheduler)
    }

    fn enabled(
        &self,
        properties: &Value,
        arn: String,
        every: Duration,
        scheduler: Scheduler,
    ) -> Result<Option<Schedule>, TemplateError> {
        let says = |name: &str, what: &str| properties.get(name).and_then(text).is_some_and(|text| text == what);
        if says("State", "DISABLED") || says("Enabled", "false") {
            return Ok(None);
        }
        let input = match properties.get("Input").and_then(text) {
            Some(input) => {
                Some(serde_json::from_str(&input).ok().ok_or_else(|| self.property("Input", "the text of JSON"))?)
            }
            None => None,
        };
        Ok(Some(Schedule { arn, every, scheduler, input }))
    }

    fn rate(&self, property: &'static str, properties: &Value) -> Result<Duration, TemplateError> {
        let expression = properties.get(property).and_then(text).unwrap_or_default();
        if expression.starts_with("cron(") || expression.starts_with("at(") {
            return Err(self.unsupported(&format!("the schedule {expression}")));
        }
        rate(&expression).ok_or_else(|| self.property(property, "rate(N minutes), rate(N hours) or rate(N days)"))
    }
}

/// `rate(5 minutes)`; EventBridge wants the singular for 1, and only for 1.
fn rate(expression: &str) -> Option<Duration> {
    let (number, unit) = expression.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    let minutes = match (unit, number) {
        ("minute", 1) | ("minutes", 2..) => 1,
        ("hour", 1) | ("hours", 2..) => 60,
        ("day", 1) | ("days", 2..) => 24 * 60,
        _ => return None,
    };
    Some(Duration::from_mins(number.checked_mul(minutes)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::template::Template;

    #[test]
    fn rates() {
        let cases = [
            ("rate(1 minute)", Some(1)),
            ("rate(5 minutes)", Some(5)),
            ("rate(1 hour)", Some(60)),
            ("rate(12 hours)", Some(720)),
            ("rate(2 days)", Some(2880)),
            ("rate(1 minutes)", None),
            ("rate(5 minute)", None),
            ("rate(0 minutes)", None),
            ("rate(5 seconds)", None),
            ("rate(5minutes)", None),
            ("5 minutes", None),
            ("", None),
        ];
        for (expression, want) in cases {
            assert_eq!(rate(expression), want.map(Duration::from_mins), "{expression}");
        }
    }

    fn read(resources: &str) -> Result<Vec<Schedule>, String> {
        let template = Template::read(&format!("Resources:\n{resources}"), &BTreeMap::new(), "http://127.0.0.1:1");
        template.map(|template| template.functions["F"].schedules.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn functions_have_schedules_of_their_own_and_of_rules() {
        let function = |events: &str| {
            format!("  F: {{ Type: AWS::Serverless::Function, Properties: {{ Events: {{ {events} }} }} }}\n")
        };
        let schedules = read(&function(
            "A: { Type: Schedule, Properties: { Schedule: rate(5 minutes) } }, \
             B: { Type: ScheduleV2, Properties: { ScheduleExpression: rate(1 hour), Input: '{\"a\":1}' } }, \
             C: { Type: Schedule, Properties: { Schedule: rate(5 minutes), Enabled: false } }",
        ));
        let schedules = schedules.unwrap();
        assert_eq!(schedules.len(), 2);
        assert_eq!(schedules[0].every, Duration::from_mins(5));
        let event = schedules[0].event();
        assert_eq!((&event["source"], &event["detail-type"]), (&json!("aws.events"), &json!("Scheduled Event")));
        assert_eq!(event["resources"], json!(["arn:aws:events:us-east-1:123456789012:rule/gantry-FA"]));
        assert_eq!(event["detail"], json!({}));
        assert_eq!(schedules[1].event(), json!({ "a": 1 }));
        let rule = |state: &str| {
            function("")
                + &format!(
                    "  R: {{ Type: AWS::Events::Rule, Properties: {{ ScheduleExpression: rate(1 day), State: {state}, Targets: [{{ Id: f, Arn: !GetAtt F.Arn }}] }} }}\n"
                )
        };
        let schedules = read(&rule("ENABLED")).unwrap();
        assert_eq!(schedules[0].arn, "arn:aws:events:us-east-1:123456789012:rule/gantry-R");
        assert_eq!(read(&rule("DISABLED")).unwrap(), []);
        let refusals = [
            (
                function("A: { Type: Schedule, Properties: { Schedule: cron(0 1 * * ? *) } }"),
                "the resource F of the template asks for the schedule cron(0 1 * * ? *), which the embedded AWS does not have",
            ),
            (
                function("A: { Type: Schedule, Properties: { Schedule: hourly } }"),
                "the resource F of the template: Schedule must be rate(N minutes), rate(N hours) or rate(N days)",
            ),
            (
                function("")
                    + "  R: { Type: AWS::Events::Rule, Properties: { ScheduleExpression: rate(1 day), Targets: [{ Id: q, Arn: 'arn:q' }] } }",
                "the resource R of the template asks for the schedule's target arn:q, which the embedded AWS does not have",
            ),
        ];
        for (resources, want) in refusals {
            assert_eq!(read(&resources).unwrap_err(), want);
        }
    }

    #[test]
    fn the_scheduler_tells_its_own_event() {
        let schedule = Schedule {
            arn: "arn".to_owned(),
            every: Duration::from_mins(1),
            scheduler: Scheduler::Scheduler,
            input: None,
        };
        let event = schedule.event();
        assert_eq!((&event["source"], &event["detail"]), (&json!("aws.scheduler"), &json!("{}")));
    }
}
