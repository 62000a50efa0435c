//! The dashboard's queries, run: over the lines that functions print while uploads go through the whole pipeline.
//!
//! The interpreter knows the part of CloudWatch Logs Insights that the queries use, and refuses the rest: `filter` with
//! `=`, `!=` and `and`, `stats latest(…) as … by …`, `sort`, `limit` (CloudWatch Logs user guide, "Logs Insights QL").

#![expect(clippy::panic, reason = "what is not understood must not pass for a result")]

use std::collections::{BTreeMap, BTreeSet};

use emulator::host::LogLine;
use serde_json::Value;

/// A line, or a row of a result: text by field.
pub(crate) type Row = BTreeMap<String, String>;

/// A query of the dashboard.
#[derive(Debug)]
pub(crate) struct Query {
    /// The log groups it reads, as the template names them.
    pub(crate) groups: BTreeSet<String>,
    commands: Vec<String>,
}

/// Reads `query`; of its `SOURCE`s the names within `${…}`.
pub(crate) fn parse(query: &str) -> Query {
    let mut read = Query { groups: BTreeSet::new(), commands: Vec::new() };
    for command in query.split(" | ") {
        match command.strip_prefix("SOURCE '${").and_then(|rest| rest.strip_suffix("}'")) {
            Some(group) => drop(read.groups.insert(group.to_owned())),
            None => read.commands.push(command.to_owned()),
        }
    }
    read
}

/// The fields that Insights finds in a line of JSON: those within an object have their way in their names.
pub(crate) fn fields(line: &LogLine) -> Row {
    let mut row =
        Row::from([("@timestamp".to_owned(), line.time.to_string()), ("@message".to_owned(), line.text.clone())]);
    if let Ok(record) = serde_json::from_str(&line.text) {
        flatten("", &record, &mut row);
    }
    row
}

fn flatten(way: &str, value: &Value, row: &mut Row) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let way = if way.is_empty() { name.clone() } else { format!("{way}.{name}") };
                flatten(&way, value, row);
            }
        }
        Value::Null | Value::Array(_) => {}
        Value::String(text) => drop(row.insert(way.to_owned(), text.clone())),
        Value::Bool(_) | Value::Number(_) => drop(row.insert(way.to_owned(), value.to_string())),
    }
}

/// What the query gives.
pub(crate) fn run(query: &Query, lines: &[LogLine]) -> Vec<Row> {
    let rows = lines.iter().map(fields).collect();
    query.commands.iter().fold(rows, |rows, command| {
        let (verb, rest) = command.split_once(' ').expect("a command has something to do");
        match verb {
            "filter" => filter(rows, rest),
            "stats" => stats(&rows, rest),
            "sort" => sort(rows, rest),
            "limit" => rows.into_iter().take(rest.parse().expect("a number")).collect(),
            other => panic!("{other} is not known here"),
        }
    })
}

fn filter(rows: Vec<Row>, conditions: &str) -> Vec<Row> {
    let conditions: Vec<[&str; 3]> = conditions
        .split(" and ")
        .map(|condition| {
            let words: Vec<&str> = condition.splitn(3, ' ').collect();
            let [field, operator, text] = words[..] else { panic!("{condition} is not understood") };
            let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            [field, operator, text.expect("a text in quotes")]
        })
        .collect();
    let holds = |row: &Row| {
        conditions.iter().all(|[field, operator, text]| {
            let is = row.get(*field).is_some_and(|value| value == text);
            match *operator {
                "=" => is,
                "!=" => !is,
                other => panic!("{other} is not known here"),
            }
        })
    };
    rows.into_iter().filter(holds).collect()
}

fn stats(rows: &[Row], rest: &str) -> Vec<Row> {
    let (columns, by) = rest.split_once(" by ").expect("by a field");
    let columns: Vec<(&str, &str)> = columns
        .split(", ")
        .map(|column| {
            let (function, alias) = column.split_once(" as ").expect("an alias");
            let field = function.strip_prefix("latest(").and_then(|rest| rest.strip_suffix(')'));
            (field.expect("latest is the only one known here"), alias)
        })
        .collect();
    let mut groups: BTreeMap<&String, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.get(by).expect("the field it is by")).or_default().push(row);
    }
    groups
        .into_iter()
        .map(|(key, mut rows)| {
            rows.sort_by_key(|row| row["@timestamp"].parse::<jiff::Timestamp>().expect("a time"));
            let latest = |field: &str| rows.iter().rev().find_map(|row| row.get(field)).cloned();
            let mut row: Row =
                columns.iter().filter_map(|(field, alias)| Some(((*alias).to_owned(), latest(field)?))).collect();
            row.insert(by.to_owned(), key.clone());
            row
        })
        .collect()
}

fn sort(mut rows: Vec<Row>, rest: &str) -> Vec<Row> {
    let (field, order) = rest.split_once(' ').expect("an order");
    rows.sort_by(|one, other| one.get(field).cmp(&other.get(field)));
    match order {
        "asc" => {}
        "desc" => rows.reverse(),
        other => panic!("{other} is no order"),
    }
    rows
}
