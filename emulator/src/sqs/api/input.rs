//! The input of a call, read one parameter at a time.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::sqs::error::SqsError;

/// A call's input.
#[derive(Debug)]
pub(super) struct Input(pub(super) Map<String, Value>);

impl Input {
    pub(super) fn text(&self, parameter: &'static str) -> Result<&str, SqsError> {
        self.0.get(parameter).and_then(Value::as_str).ok_or(SqsError::Missing { parameter })
    }

    pub(super) fn number(&self, parameter: &'static str) -> Result<Option<u64>, SqsError> {
        match self.0.get(parameter) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| SqsError::Parameter { parameter, reason: "Must be a whole number.".to_owned() }),
        }
    }

    pub(super) fn seconds(&self, parameter: &'static str) -> Result<Option<Duration>, SqsError> {
        Ok(self.number(parameter)?.map(Duration::from_secs))
    }

    pub(super) fn map(&self, parameter: &str) -> Map<String, Value> {
        self.0.get(parameter).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    pub(super) fn list(&self, parameter: &str) -> Vec<String> {
        self.0
            .get(parameter)
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default()
    }
}
