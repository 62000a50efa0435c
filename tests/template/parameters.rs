//! `docs/parameters.md` says what the template says; `GANTRY_WRITE_DOCS=1 cargo test -p pipeline-tests --test template
//! parameters` writes it anew.

use std::fmt::Write as _;

use serde_json::Value;

use crate::document::{section, text};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/parameters.md");

/// What a value has to be, besides what the description says.
fn allowed(parameter: &Value) -> String {
    if let Some(values) = parameter["AllowedValues"].as_array() {
        return values.iter().filter_map(text).map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    match (text(&parameter["MinValue"]), text(&parameter["MaxValue"])) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => match parameter["AllowedPattern"].as_str() {
            // A bar ends a column of a table.
            Some(pattern) => format!("`{}`", pattern.replace('|', "\\|")),
            None => String::new(),
        },
    }
}

fn page() -> String {
    let parameters = section("Parameters");
    let interface = section("Metadata").remove("AWS::CloudFormation::Interface").expect("the console's view");
    let mut page = String::from(
        "# Parameters\n\n\
         Of `template.yaml`, which this page is made from; a test holds it against it.\n\
         Give them to `sam deploy` by `--parameter-overrides Name=value`, or answer its questions with `--guided`.\n\
         A parameter that is changed later counts for repositories that are made from then on, and for every release from then on.\n",
    );
    let mut told = 0;
    for group in interface["ParameterGroups"].as_array().expect("groups") {
        let title = group["Label"]["default"].as_str().expect("a title");
        write!(page, "\n## {title}\n\n| parameter | default | values | what it does |\n|---|---|---|---|\n")
            .expect("text");
        for name in group["Parameters"].as_array().expect("names") {
            let name = name.as_str().expect("a name");
            let parameter = &parameters[name];
            let default = text(&parameter["Default"]).expect("every parameter has a default");
            let default = if default.is_empty() { "(empty)".to_owned() } else { format!("`{default}`") };
            let description = parameter["Description"].as_str().expect("a description");
            writeln!(page, "| `{name}` | {default} | {} | {description} |", allowed(parameter)).expect("text");
            assert!(interface["ParameterLabels"][name]["default"].is_string(), "{name} has no label");
            told += 1;
        }
    }
    assert_eq!(told, parameters.len(), "a parameter is in no group, or in two");
    page
}

#[test]
fn the_page_of_parameters_is_the_template_s() {
    let wanted = page();
    if std::env::var_os("GANTRY_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &wanted).expect("the page is written");
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(found == wanted, "docs/parameters.md differs from the template: GANTRY_WRITE_DOCS=1 makes it anew");
}
