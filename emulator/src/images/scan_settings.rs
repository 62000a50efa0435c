//! The registry's scanning configuration: which repositories are scanned, whatever they say themselves.

use std::io;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{Images, ImagesError};

/// The registry's scanning configuration, as the ECR API has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scanning {
    /// Who scans.
    #[serde(default)]
    pub scan_type: ScanType,
    /// Which repositories; at most two, one for each frequency.
    #[serde(default)]
    pub rules: Vec<ScanRule>,
}

/// `BASIC` or `ENHANCED`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ScanType {
    /// ECR itself.
    #[default]
    Basic,
    /// Inspector.
    Enhanced,
}

/// Which repositories are scanned when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScanRule {
    /// `SCAN_ON_PUSH`, `CONTINUOUS_SCAN` or `MANUAL`.
    pub scan_frequency: String,
    /// The repositories.
    pub repository_filters: Vec<ScanFilter>,
}

/// A filter over repository names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScanFilter {
    /// With `*`, or without it a part of the name.
    pub filter: String,
    /// `WILDCARD`.
    pub filter_type: String,
}

impl Scanning {
    /// Whether a rule has `repository` scanned when an image is pushed.
    pub(super) fn scans_on_push(&self, repository: &str) -> bool {
        self.rules
            .iter()
            .filter(|rule| rule.scan_frequency != "MANUAL")
            .flat_map(|rule| &rule.repository_filters)
            .any(|filter| filter.matches(repository))
    }
}

impl ScanFilter {
    fn matches(&self, repository: &str) -> bool {
        if self.filter.contains('*') {
            WildMatch::new(&self.filter).matches(repository)
        } else {
            repository.contains(&self.filter)
        }
    }
}

impl Images {
    /// The registry's scanning configuration; basic and without rules unless it was set.
    pub fn scanning(&self) -> Scanning {
        self.lock().account.scanning.clone()
    }

    /// Sets the registry's scanning configuration.
    ///
    /// # Errors
    ///
    /// [`ImagesError::Io`].
    pub fn set_scanning(&self, scanning: Scanning) -> Result<(), ImagesError> {
        self.change_account(|account| account.scanning = scanning).map_err(ImagesError::from)
    }

    /// Changes the account's settings and saves them; nothing is changed when saving fails.
    pub(super) fn change_account(&self, change: impl FnOnce(&mut super::Account)) -> io::Result<()> {
        let mut state = self.lock();
        let mut account = state.account.clone();
        change(&mut account);
        crate::disk::write_json(&self.folder.join("account.json"), &account)?;
        state.account = account;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_choose_repositories() {
        let scanning = |frequency: &str, filter: &str| Scanning {
            scan_type: ScanType::Basic,
            rules: vec![ScanRule {
                scan_frequency: frequency.to_owned(),
                repository_filters: vec![ScanFilter { filter: filter.to_owned(), filter_type: "WILDCARD".to_owned() }],
            }],
        };
        let cases = [
            ("SCAN_ON_PUSH", "*", true),
            ("CONTINUOUS_SCAN", "team/*", true),
            ("SCAN_ON_PUSH", "eam/a", true),
            ("SCAN_ON_PUSH", "other/*", false),
            ("SCAN_ON_PUSH", "app/*", false),
            ("MANUAL", "*", false),
        ];
        for (frequency, filter, want) in cases {
            assert_eq!(scanning(frequency, filter).scans_on_push("team/app"), want, "{frequency} {filter}");
        }
        assert!(!Scanning::default().scans_on_push("team/app"));
    }
}
