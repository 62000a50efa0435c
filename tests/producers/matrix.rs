//! The conformance matrix as a page.

use std::fmt::Write as _;

use crate::Expected as Real;
use crate::rows::{Expected, Outcome, Row};

const HEAD: &str = "\
# Conformance

Which archives become which images.
This page is written by the tests (`tests/producers`), which import every row through the whole pipeline and fail when \
it says something else.
Config digests, uncompressed layers and manifests are compared by other code than the library's: `sha2`, `flate2`, \
`zstd`, `liblzma` and `bzip2` in the tests, and skopeo on real tarballs where it is installed.

*Byte for byte*: the digest in ECR is the digest in the archive.
*Same image ID*: the archive has no manifest that could be pushed; one is made around the unchanged config, and every \
layer's uncompressed bytes are checked against it.

## Archives as each producer writes them

Built by the tests.

| producer | what is peculiar | outcome |
|---|---|---|
";

const REAL: &str = "
## Real tarballs

Not part of the project; checked where `GANTRY_TARBALLS` names their folder.

| file | outcome |
|---|---|
";

pub(crate) fn written(rows: &[Row], files: &[(&str, Real)]) -> String {
    let mut page = HEAD.to_owned();
    for row in rows {
        let outcome = match &row.outcome {
            Outcome::Refused(words) => format!("refused: \u{201c}{words}\u{201d}"),
            Outcome::Released(expected) => released(expected),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        writeln!(page, "| {} | {} | {outcome} |", cell(row.producer), cell(row.layout)).unwrap();
    }
    page.push_str(REAL);
    for (name, expected) in files {
        let outcome = match expected {
            Real::Released(images) => number(*images),
            Real::Refused(words) => format!("refused: \u{201c}{words}\u{201d}"),
        };
        writeln!(page, "| {name} | {outcome} |").unwrap();
    }
    page
}

fn number(images: usize) -> String {
    if images == 1 { "released".to_owned() } else { format!("{images} images released") }
}

fn released(expected: &Expected) -> String {
    let mut outcome = number(expected.images);
    outcome.push_str(if expected.manifest.is_some() {
        ", byte for byte"
    } else if !expected.leaves.is_empty() {
        ", each image byte for byte"
    } else {
        ", same image ID"
    });
    if !expected.beside.is_empty() {
        outcome.push_str(", with what speaks of it");
    }
    match expected.left_out {
        0 => {}
        1 => outcome.push_str("; the receipt names what was left out"),
        left_out => write!(outcome, "; the receipt names {left_out} things that were left out").unwrap(),
    }
    outcome
}
