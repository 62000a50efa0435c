//! Who may do what: access keys, registry passwords and the roles' policies.

mod condition;
mod policy;

pub(crate) use policy::allows;
pub use policy::{PolicyError, Statement};

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use crate::{account, wire::Caller};

/// One function's role, as the template describes it.
#[derive(Debug, Clone)]
pub struct Role {
    /// The function's logical id in the template.
    pub function: String,
    /// The function's name, which is also the role session's name.
    pub session: String,
    /// What the role's policies say.
    pub statements: Vec<Statement>,
}

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The access key id, such as `ASIA…`.
    pub id: String,
    /// The secret that signs requests.
    pub secret: String,
    /// The session token; `None` for the user, whose key is a lasting one.
    pub session_token: Option<String>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One call that a policy was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who called.
    pub caller: Caller,
    /// The IAM action, such as `s3:GetObjectVersion`.
    pub action: String,
    /// The resource's ARN.
    pub resource: String,
    /// Whether the call was allowed.
    pub allowed: bool,
}

/// A refused call, with IAM's own wording as its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "User: {caller_arn} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows the {action} action"
)]
pub struct Denied {
    /// The assumed role's ARN.
    pub caller_arn: String,
    /// The IAM action.
    pub action: String,
    /// The resource's ARN.
    pub resource: String,
}

/// Evaluates the template's role policies and records every decision.
///
/// Access keys of roles are made when the gate is made and are gone with it.
#[derive(Debug)]
pub struct Gate {
    roles: HashMap<String, Granted>,
    decisions: Mutex<Vec<Decision>>,
    passwords: Mutex<HashMap<String, Caller>>,
}

#[derive(Debug)]
struct Granted {
    arn: String,
    key: AccessKey,
    statements: Vec<Statement>,
}

impl Gate {
    /// A gate that knows the user and `roles`.
    pub fn new(roles: Vec<Role>) -> Self {
        let roles = roles
            .into_iter()
            .map(|role| {
                let random = Uuid::new_v4().simple().to_string().to_uppercase();
                let granted = Granted {
                    arn: format!(
                        "arn:{}:sts::{}:assumed-role/{}-{}Role/{}",
                        account::PARTITION,
                        account::ID,
                        account::STACK,
                        role.function,
                        role.session
                    ),
                    key: AccessKey {
                        // As real ones: ASIA for a role's session, 20 characters in all.
                        id: format!("ASIA{}", &random[..16]),
                        secret: Uuid::new_v4().simple().to_string(),
                        session_token: Some(Uuid::new_v4().simple().to_string()),
                    },
                    statements: role.statements,
                };
                (role.function, granted)
            })
            .collect();
        Self { roles, decisions: Mutex::default(), passwords: Mutex::default() }
    }

    /// The access key of `caller`; `None` for a role that the template does not have.
    pub fn key_of(&self, caller: &Caller) -> Option<AccessKey> {
        match caller {
            Caller::User => Some(AccessKey {
                id: account::USER_ACCESS_KEY_ID.to_owned(),
                secret: account::USER_SECRET.to_owned(),
                session_token: None,
            }),
            Caller::Role(function) => self.roles.get(function).map(|role| role.key.clone()),
        }
    }

    /// Whose access key `access_key_id` is.
    pub fn caller_of(&self, access_key_id: &str) -> Option<Caller> {
        if access_key_id == account::USER_ACCESS_KEY_ID {
            return Some(Caller::User);
        }
        self.roles
            .iter()
            .find(|(_, role)| role.key.id == access_key_id)
            .map(|(function, _)| Caller::Role(function.clone()))
    }

    /// The secret that belongs to `access_key_id`.
    pub fn secret_of(&self, access_key_id: &str) -> Option<String> {
        let caller = self.caller_of(access_key_id)?;
        self.key_of(&caller).map(|key| key.secret)
    }

    /// Makes a registry password by which [`Self::caller_of_password`] knows `caller` again.
    ///
    /// It is what `GetAuthorizationToken` hands out after `AWS:`; it is valid as long as the gate.
    pub fn issue_password(&self, caller: &Caller) -> String {
        let password = Uuid::new_v4().simple().to_string();
        lock(&self.passwords).insert(password.clone(), caller.clone());
        password
    }

    /// Who was given the registry password `password`.
    pub fn caller_of_password(&self, password: &str) -> Option<Caller> {
        lock(&self.passwords).get(password).cloned()
    }

    /// Decides whether `caller` may perform `action` on `resource`, and records the decision.
    ///
    /// `context` holds condition keys and their values, such as
    /// `("aws:ResourceTag/gantry:stack", "gantry")`. An explicit deny wins over every allow.
    ///
    /// # Errors
    ///
    /// [`Denied`] when no statement of the role allows the call, or one denies it.
    pub fn check(
        &self,
        caller: &Caller,
        action: &str,
        resource: &str,
        context: &[(String, String)],
    ) -> Result<(), Denied> {
        let allowed = match caller {
            Caller::User => true,
            Caller::Role(function) => {
                self.roles.get(function).is_some_and(|role| allows(&role.statements, action, resource, context))
            }
        };
        lock(&self.decisions).push(Decision {
            caller: caller.clone(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            allowed,
        });
        if allowed {
            Ok(())
        } else {
            Err(Denied { caller_arn: self.arn_of(caller), action: action.to_owned(), resource: resource.to_owned() })
        }
    }

    /// The ARN that error messages give for `caller`.
    pub fn arn_of(&self, caller: &Caller) -> String {
        match caller {
            Caller::User => format!("arn:{}:iam::{}:user/gantry", account::PARTITION, account::ID),
            Caller::Role(function) => self.roles.get(function).map_or_else(
                || format!("arn:{}:sts::{}:assumed-role/{function}", account::PARTITION, account::ID),
                |role| role.arn.clone(),
            ),
        }
    }

    /// Every decision so far, in order.
    pub fn calls(&self) -> Vec<Decision> {
        lock(&self.decisions).clone()
    }
}

/// Locks; a thread that panicked while holding the lock left whole entries behind.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gate() -> Gate {
        let statement = json!({
            "Effect": "Allow",
            "Action": "ecr:PutImage",
            "Resource": "arn:aws:ecr:us-east-1:123456789012:repository/team/*",
        });
        Gate::new(vec![Role {
            function: "ImportFunction".to_owned(),
            session: "gantry-ImportFunction".to_owned(),
            statements: vec![Statement::parse(&statement).unwrap()],
        }])
    }

    #[test]
    fn keys_and_passwords_lead_back_to_their_caller() {
        let gate = gate();
        let role = Caller::Role("ImportFunction".to_owned());
        for caller in [Caller::User, role] {
            let key = gate.key_of(&caller).unwrap();
            assert_eq!(gate.caller_of(&key.id), Some(caller.clone()));
            assert_eq!(gate.secret_of(&key.id), Some(key.secret));
            let password = gate.issue_password(&caller);
            assert_eq!(gate.caller_of_password(&password), Some(caller));
        }
        assert_eq!(gate.caller_of("AKIASTRANGER"), None);
        assert_eq!(gate.caller_of_password(""), None);
        assert_eq!(gate.key_of(&Caller::Role("Other".to_owned())), None);
    }

    #[test]
    fn refusals_read_like_iams_and_everything_is_recorded() {
        let gate = gate();
        let role = Caller::Role("ImportFunction".to_owned());
        let own = account::arn("ecr", "repository/team/app");
        let other = account::arn("ecr", "repository/other/app");
        assert_eq!(gate.check(&role, "ecr:PutImage", &own, &[]), Ok(()));
        assert_eq!(gate.check(&Caller::User, "ecr:PutImage", &other, &[]), Ok(()));
        let denied = gate.check(&role, "ecr:PutImage", &other, &[]).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "User: arn:aws:sts::123456789012:assumed-role/gantry-ImportFunctionRole/gantry-ImportFunction \
             is not authorized to perform: ecr:PutImage on resource: \
             arn:aws:ecr:us-east-1:123456789012:repository/other/app \
             because no identity-based policy allows the ecr:PutImage action"
        );
        let allowed: Vec<bool> = gate.calls().iter().map(|call| call.allowed).collect();
        assert_eq!(allowed, [true, true, false]);
    }
}
