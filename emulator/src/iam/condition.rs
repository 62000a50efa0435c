//! Conditions of policy statements.
//!
//! The IAM user guide, "IAM JSON policy elements: Condition operators" and "Set operators for
//! multivalued context keys". What is not known is refused when the policy is read: a condition
//! that never holds would make a deny that never denies.

use wildmatch::WildMatch;

/// One operator on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    test: Test,
    negated: bool,
    if_exists: bool,
    all_values: bool,
    key: String,
    wanted: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equals,
    EqualsIgnoringCase,
    Like,
    Arn,
    Bool,
    Null,
}

impl Condition {
    /// `None` for an operator that is not known here.
    pub(super) fn parse(operator: &str, key: &str, wanted: Vec<String>) -> Option<Self> {
        let (all_values, rest) = match operator.split_once(':') {
            Some(("ForAllValues", rest)) => (true, rest),
            Some(("ForAnyValue", rest)) => (false, rest),
            Some(_) => return None,
            None => (false, operator),
        };
        let (if_exists, rest) = rest.strip_suffix("IfExists").map_or((false, rest), |rest| (true, rest));
        let (test, negated) = match rest {
            "StringEquals" => (Test::Equals, false),
            "StringNotEquals" => (Test::Equals, true),
            "StringEqualsIgnoreCase" => (Test::EqualsIgnoringCase, false),
            "StringNotEqualsIgnoreCase" => (Test::EqualsIgnoringCase, true),
            "StringLike" => (Test::Like, false),
            "StringNotLike" => (Test::Like, true),
            // AWS documents the two as the same.
            "ArnLike" | "ArnEquals" => (Test::Arn, false),
            "ArnNotLike" | "ArnNotEquals" => (Test::Arn, true),
            "Bool" => (Test::Bool, false),
            "Null" if !if_exists => (Test::Null, false),
            _ => return None,
        };
        Some(Self { test, negated, if_exists, all_values, key: key.to_owned(), wanted })
    }

    /// Whether it holds for a call with these condition keys; a key with several values is there
    /// several times.
    pub(super) fn holds(&self, context: &[(String, String)]) -> bool {
        let actual: Vec<&str> = context
            .iter()
            .filter(|(key, _)| self.key.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
            .collect();
        if self.test == Test::Null {
            return self.wanted.iter().any(|wanted| *wanted == actual.is_empty().to_string());
        }
        if actual.is_empty() {
            return self.if_exists || self.all_values || self.negated;
        }
        let matches = |actual: &&str| self.wanted.iter().any(|wanted| self.test.matches(wanted, actual));
        match (self.all_values, self.negated) {
            (true, false) => actual.iter().all(matches),
            (false, false) => actual.iter().any(matches),
            (_, true) => !actual.iter().any(matches),
        }
    }
}

impl Test {
    fn matches(self, wanted: &str, actual: &str) -> bool {
        match self {
            Self::Equals => wanted == actual,
            Self::EqualsIgnoringCase | Self::Bool => wanted.eq_ignore_ascii_case(actual),
            Self::Like => like(wanted, actual),
            Self::Arn => arn_like(wanted, actual),
            Self::Null => false,
        }
    }
}

/// Compares with `*` and `?`.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    WildMatch::new(pattern).matches(text)
}

/// Compares part by part: a wildcard does not reach over one of an ARN's first five colons.
pub(super) fn arn_like(pattern: &str, arn: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.splitn(6, ':'), arn.splitn(6, ':'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if like(pattern, part) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_hold_as_iams_do() {
        let arn = "arn:aws:sns:us-east-1:123456789012:told";
        // The operator, what it wants, the key's values in the call, whether it holds.
        let cases: [(&str, &[&str], &[&str], bool); 37] = [
            ("StringEquals", &["gantry"], &["gantry"], true),
            ("StringEquals", &["other", "gantry"], &["gantry"], true),
            ("StringEquals", &["Gantry"], &["gantry"], false),
            ("StringEquals", &["gan*"], &["gantry"], false),
            ("StringEquals", &["gantry"], &[], false),
            ("StringEqualsIfExists", &["gantry"], &[], true),
            ("StringEqualsIfExists", &["gantry"], &["other"], false),
            ("StringEqualsIgnoreCase", &["Gantry"], &["gantry"], true),
            ("StringNotEquals", &["gantry"], &["other"], true),
            ("StringNotEquals", &["gantry", "other"], &["other"], false),
            ("StringNotEquals", &["gantry"], &[], true),
            ("StringNotEqualsIgnoreCase", &["Gantry"], &["gantry"], false),
            ("StringLike", &["g?n*"], &["gantry"], true),
            ("StringLike", &["x*"], &["gantry"], false),
            ("StringNotLike", &["g*"], &["gantry"], false),
            ("StringNotLike", &["x*"], &["gantry"], true),
            ("ArnLike", &["arn:aws:sns:*:123456789012:t*"], &[arn], true),
            ("ArnLike", &["arn:aws:sns:*"], &[arn], false),
            ("ArnEquals", &[arn], &[arn], true),
            ("ArnNotLike", &["arn:aws:sns:*:*:t*"], &[arn], false),
            ("ArnNotEquals", &["arn:aws:sns:*:*:x"], &[arn], true),
            ("Bool", &["false"], &["False"], true),
            ("Bool", &["false"], &["true"], false),
            ("Bool", &["false"], &[], false),
            ("BoolIfExists", &["false"], &[], true),
            ("Null", &["true"], &[], true),
            ("Null", &["true"], &["x"], false),
            ("Null", &["false"], &["x"], true),
            ("ForAllValues:StringEquals", &["a", "b"], &["a"], true),
            ("ForAllValues:StringEquals", &["a", "b"], &["a", "c"], false),
            ("ForAllValues:StringEquals", &["a"], &[], true),
            ("ForAllValues:StringLike", &["gantry:*"], &["gantry:stack", "gantry:x"], true),
            ("ForAnyValue:StringEquals", &["a"], &["c", "a"], true),
            ("ForAnyValue:StringEquals", &["a"], &["c"], false),
            ("ForAnyValue:StringEquals", &["a"], &[], false),
            ("ForAllValues:StringNotEquals", &["a"], &["b", "c"], true),
            ("ForAllValues:StringNotEquals", &["a"], &["b", "a"], false),
        ];
        for (operator, wanted, actual, want) in cases {
            let wanted = wanted.iter().map(|value| (*value).to_owned()).collect();
            let condition = Condition::parse(operator, "Events:Source", wanted).unwrap();
            let mut context = vec![("other".to_owned(), "gantry".to_owned())];
            context.extend(actual.iter().map(|value| ("events:source".to_owned(), (*value).to_owned())));
            assert_eq!(condition.holds(&context), want, "{operator} on {actual:?}");
        }
    }

    #[test]
    fn unknown_operators_are_none() {
        for operator in ["NumericEquals", "DateLessThan", "IpAddress", "NullIfExists", "ForSome:StringEquals", ""] {
            assert_eq!(Condition::parse(operator, "k", Vec::new()), None, "{operator}");
        }
    }
}
