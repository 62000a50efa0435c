//! Faults as data: which call of a function goes wrong, how, and how often.
//!
//! A plan is shared: a test adds faults while the stack runs, asks how often each one fired, and
//! reads the log of all requests. Faults meet only calls that a function makes, never the user's.

mod classify;
mod hold;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use wildmatch::WildMatch;

pub use classify::Operation;
pub(crate) use classify::is_form;
pub use hold::Hold;

use crate::wire::Caller;

/// One kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which operation, with `*` and `?`: `s3:GetObject`, `ecr:CreateRepository`,
    /// `registry:PutManifest`, `sqs:*`, `events:PutEvents`, `sns:Publish`. [`Operation`] lists the names.
    pub operation: String,
    /// Only calls whose resource contains this text, or is matched by it where it has a `*`.
    pub resource: Option<String>,
    /// How many matching calls go well first.
    pub skip: usize,
    /// How many go wrong after that.
    pub times: usize,
    /// What goes wrong.
    pub action: Action,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The call is answered with this status and body, and not handled.
    Status(u16, String),
    /// The connection is closed before the call is handled.
    Reset,
    /// The call is handled, and the connection closed after this many bytes of the answer's body.
    ShortBody(u64),
    /// The call is never answered.
    Stall,
    /// The connection is closed after this many bytes of the request's body were read; the
    /// service has seen only these.
    DropAfterRequestBytes(u64),
    /// Nothing more is read after this many bytes of the request's body, and nothing answered.
    StallAfterRequestBytes(u64),
    /// The call is handled, and the connection closed instead of the answer.
    CloseAfterHandling,
    /// The call is handled, and its answer's body comes one byte at a time, this far apart.
    Drip(Duration),
    /// The call waits until whoever has the hold lets it go on; then it is handled.
    Hold(Hold),
    /// The call is handled, and its answer waits until whoever has the hold lets it go on.
    HoldAnswer(Hold),
    /// The call is handled, and the answer has this header instead of its own.
    Header(HeaderName, HeaderValue),
}

/// Names a fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultId(usize);

/// One request that reached the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// What it asked for.
    pub operation: Operation,
    /// Who asked; `None` without a credential that is known.
    pub caller: Option<Caller>,
    /// The answer's status; `None` when the connection was closed, or the answer is outstanding.
    pub status: Option<u16>,
}

/// A shared list of faults and the log of all requests.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Planned>,
    requests: Vec<Logged>,
}

#[derive(Debug)]
struct Planned {
    fault: Fault,
    seen: usize,
    fired: usize,
}

/// The place of a request in the log, to note its status in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId(usize);

impl FaultPlan {
    /// A plan without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault; it counts calls from now on.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut inner = self.lock();
        inner.faults.push(Planned { fault, seen: 0, fired: 0 });
        FaultId(inner.faults.len() - 1)
    }

    /// The fault fires no more.
    pub fn lift(&self, fault: FaultId) {
        if let Some(planned) = self.lock().faults.get_mut(fault.0) {
            planned.fault.times = 0;
        }
    }

    /// How often the fault has fired.
    pub fn fired(&self, fault: FaultId) -> usize {
        self.lock().faults.get(fault.0).map_or(0, |planned| planned.fired)
    }

    /// Every request so far, the user's included, in the order of arrival.
    pub fn requests(&self) -> Vec<Logged> {
        self.lock().requests.clone()
    }

    /// How many requests of functions named an operation that `pattern` matches.
    pub fn count(&self, pattern: &str) -> usize {
        let pattern = WildMatch::new(pattern);
        self.lock()
            .requests
            .iter()
            .filter(|request| matches!(request.caller, Some(Caller::Role(_))))
            .filter(|request| pattern.matches(&request.operation.name))
            .count()
    }

    /// Logs a request, and says what goes wrong with it. The first fault that is due wins.
    pub(crate) fn meet(&self, operation: &Operation, caller: Option<&Caller>) -> (RequestId, Option<Action>) {
        let mut inner = self.lock();
        inner.requests.push(Logged { operation: operation.clone(), caller: caller.cloned(), status: None });
        let id = RequestId(inner.requests.len() - 1);
        let mut action = None;
        if let Some(Caller::Role(_)) = caller {
            for planned in &mut inner.faults {
                let fault = &planned.fault;
                let matches = WildMatch::new(&fault.operation).matches(&operation.name)
                    && fault.resource.as_deref().is_none_or(|wanted| is_about(wanted, &operation.resource));
                if !matches {
                    continue;
                }
                planned.seen += 1;
                if action.is_none() && planned.seen > fault.skip && planned.fired < fault.times {
                    planned.fired += 1;
                    action = Some(fault.action.clone());
                }
            }
        }
        (id, action)
    }

    /// Notes a request's answer.
    pub(crate) fn answered(&self, request: RequestId, status: u16) {
        if let Some(logged) = self.lock().requests.get_mut(request.0) {
            logged.status = Some(status);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_about(wanted: &str, resource: &str) -> bool {
    if wanted.contains('*') { WildMatch::new(wanted).matches(resource) } else { resource.contains(wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(name: &str, resource: &str) -> Operation {
        Operation { name: name.to_owned(), resource: resource.to_owned() }
    }

    #[test]
    fn faults_fire_when_they_are_due_and_only_for_functions() {
        let plan = FaultPlan::new();
        let fault = plan.add(Fault {
            operation: "s3:Get*".to_owned(),
            resource: Some("a.tar".to_owned()),
            skip: 1,
            times: 2,
            action: Action::Reset,
        });
        let role = Caller::Role("Import".to_owned());
        let cases = [
            ("user", Some(&Caller::User), "s3:GetObject", "uploads/a.tar", false),
            ("stranger", None, "s3:GetObject", "uploads/a.tar", false),
            ("skipped", Some(&role), "s3:GetObject", "uploads/a.tar", false),
            ("another operation", Some(&role), "s3:PutObject", "uploads/a.tar", false),
            ("another key", Some(&role), "s3:GetObject", "uploads/b.tar", false),
            ("first", Some(&role), "s3:GetObject", "uploads/a.tar", true),
            ("second", Some(&role), "s3:GetObjectTagging", "uploads/a.tar", true),
            ("over", Some(&role), "s3:GetObject", "uploads/a.tar", false),
        ];
        for (label, caller, name, resource, want) in cases {
            let (id, action) = plan.meet(&operation(name, resource), caller);
            assert_eq!(action.is_some(), want, "{label}");
            plan.answered(id, 200);
        }
        assert_eq!(plan.fired(fault), 2);
        assert_eq!(plan.requests().len(), cases.len());
        assert!(plan.requests().iter().all(|request| request.status == Some(200)));
        assert_eq!(plan.count("s3:GetObject"), 4);
    }
}
