//! How bad a finding is.

use serde::{Deserialize, Serialize};

/// How bad a finding is. ECR and Inspector name the same levels in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Of interest only.
    Informational,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
    /// The scanner gives none (`UNDEFINED`, `UNTRIAGED`); the policy says which level that counts as.
    Undefined,
}

impl Severity {
    /// The level that a scanner's word names; a word that is not known counts as [`Severity::Undefined`], so that no
    /// finding is ever dropped for its spelling.
    pub fn named(word: &str) -> Self {
        match word.to_ascii_uppercase().as_str() {
            "INFORMATIONAL" => Self::Informational,
            "LOW" => Self::Low,
            "MEDIUM" => Self::Medium,
            "HIGH" => Self::High,
            "CRITICAL" => Self::Critical,
            _ => Self::Undefined,
        }
    }

    /// For sorting: one without a level stands among the medium ones.
    pub fn rank(self) -> u8 {
        match self {
            Self::Informational => 0,
            Self::Low => 1,
            Self::Medium | Self::Undefined => 2,
            Self::High => 3,
            Self::Critical => 4,
        }
    }

    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Undefined => "undefined",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_level_and_none_is_dropped() {
        for (word, severity) in [
            ("CRITICAL", Severity::Critical),
            ("High", Severity::High),
            ("UNTRIAGED", Severity::Undefined),
            ("UNDEFINED", Severity::Undefined),
            ("brand new", Severity::Undefined),
        ] {
            assert_eq!(Severity::named(word), severity, "{word}");
        }
        assert!(
            Severity::Undefined.rank() < Severity::High.rank() && Severity::Low.rank() < Severity::Undefined.rank()
        );
    }
}
