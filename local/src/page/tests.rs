//! What the page makes of data that means ill, and of much data.

use serde_json::{Value, json};

use super::board::{Board, Facts, ROWS, Upload};
use super::{file, view};
use crate::watch::BlobStep;

/// Ends a tag, an attribute in either quotes, a script, a style and a comment, and begins a script.
const HOSTILE: &str = "</pre></style></script>\"'--><script>alert(1)</script><img src=x onerror=alert(1)>";

fn facts() -> Facts {
    Facts { stack: HOSTILE.to_owned(), endpoint: HOSTILE.to_owned(), uploads: HOSTILE.to_owned() }
}

/// A receipt in which every text that an uploader, an image, a scanner or a policy can choose is hostile.
fn receipt(state: &str, outcome: &str) -> Value {
    let digest = format!("sha256:{}", "1".repeat(64));
    let at = "2026-01-01T00:00:00Z";
    json!({
        "state": state, "summary": HOSTILE, "next": HOSTILE, "schema": 1, "stack": HOSTILE, "version": HOSTILE,
        "upload": {"bucket": HOSTILE, "key": HOSTILE, "version_id": HOSTILE, "etag": null, "sequencer": null},
        "import": {
            "outcome": outcome, "attempt": {"n": 1, "of": 10}, "started_at": at, "updated_at": at, "duration_ms": 5,
            "reason": {"kind": HOSTILE, "text": HOSTILE, "fix": HOSTILE, "upload_again_helps": false},
            "images": [{
                "repository": "team/app", "tags": ["1"], "digest": digest, "uri": HOSTILE, "platforms": [HOSTILE],
                "named_by": "key", "unchanged": false,
                "blobs": [{"digest": digest, "size_bytes": 5, "how": "sent"}],
            }],
        },
        "reaction": {
            format!("team/app@{digest}"): {
                "release": {"state": "held", "held": {"kind": "policy", "text": HOSTILE, "fix": HOSTILE}},
                "verification": {
                    "passed": false, "at": at, "manifests": 1, "blobs": 1,
                    "failures": [{"what": HOSTILE, "wanted": HOSTILE, "found": HOSTILE}],
                },
                "verdict": {
                    "outcome": "fail", "allows_release": false, "reason": HOSTILE, "policy": HOSTILE, "read_at": at,
                    "since": at, "counts": {"critical": 1}, "excepted": [HOSTILE],
                    "top": [{
                        "id": HOSTILE, "severity": "critical", "package": HOSTILE, "version": HOSTILE,
                        "fixed_in": HOSTILE, "fix": "available",
                    }],
                },
            },
        },
    })
}

fn upload(state: &str, outcome: &str) -> Upload {
    Upload {
        key: HOSTILE.to_owned(),
        receipt: Some(serde_json::from_value(receipt(state, outcome)).unwrap()),
        ..Upload::default()
    }
}

/// Nothing of [`HOSTILE`] is anything but text.
fn check(what: &str, html: &str) {
    assert!(html.contains("&lt;/pre&gt;&lt;/style&gt;"), "{what} says it");
    for markup in ["<script>alert", "<img", "</pre></style>", "\"'--"] {
        assert!(!html.contains(markup), "{what} has {markup} as markup:\n{html}");
    }
}

#[test]
fn every_value_is_text_and_never_markup() {
    for (state, outcome) in
        [("importing", "importing"), ("imported", "imported"), ("held", "imported"), ("failed", "failed")]
    {
        let upload = upload(state, outcome);
        check(state, &view::row(&upload).into_string());
        let events = [HOSTILE.to_owned()];
        check("the story", &view::story(Some(HOSTILE), &events).into_string());
        check("the file", &file::of_one(&facts(), &upload, Some(HOSTILE), &events).html);
        let board = Board::default();
        board.uploaded(upload);
        check("the page", &view::page(&facts(), &board.look(0)).into_string());
    }
}

#[test]
fn the_file_runs_nothing_but_its_own_script() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};

    let file = file::of_one(&facts(), &upload("held", "imported"), None, &[]);
    let mut found = 0;
    for (begin, end, directive) in [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src")] {
        for after in file.html.split(begin).skip(1) {
            let text = after.split(end).next().unwrap();
            let hash = STANDARD.encode(Sha256::digest(text.as_bytes()));
            assert!(file.policy.contains(&format!("{directive} 'sha256-{hash}'")), "{begin} is allowed by its hash");
            found += 1;
        }
    }
    assert_eq!(found, 2);
    for hole in ["unsafe", "http:", "https:", "data:", "*"] {
        assert!(!file.policy.contains(hole), "{}", file.policy);
    }
    let inline = regex_lite::Regex::new(r#"<\w+(?: [\w-]+(?:="[^"]*")?)* (on\w+|style)="#).unwrap();
    let found = inline.find(&file.html).map(|found| found.as_str().to_owned());
    assert_eq!(found, None, "no inline handler and no inline style");
}

#[test]
fn rows_are_bounded_and_counts_are_not() {
    let board = Board::default();
    for at in 0..ROWS * 3 {
        board.uploaded(Upload { key: format!("k{at}"), ..Upload::default() });
    }
    let seen = board.look(0);
    assert_eq!(seen.rows.len(), ROWS);
    assert_eq!(seen.counts.waiting, ROWS * 3);
    assert_eq!(seen.rows[0].key, format!("k{}", ROWS * 3 - 1), "the newest first");
    // A receipt of one that has no row any more still counts.
    let old: gantry::receipt::Receipt = serde_json::from_value(receipt("failed", "failed")).unwrap();
    board.receipt("k0", old);
    let counts = board.look(seen.revision).counts;
    assert_eq!((counts.waiting, counts.failed), (ROWS * 3 - 1, 1));
}

#[test]
fn a_look_gives_what_changed_since_the_last() {
    let board = Board::default();
    for key in ["a", "b"] {
        board.uploaded(Upload { key: key.to_owned(), ..Upload::default() });
    }
    let seen = board.look(0);
    assert!(board.look(seen.revision).rows.is_empty());
    let step = |at| BlobStep {
        at,
        of: 2,
        entry: "layer".to_owned(),
        entry_bytes: 10,
        read_bytes: 5,
        sent_bytes: 2,
        how: "sending".to_owned(),
    };
    board.moved("a", step(0));
    board.moved("gone", step(0));
    let changed = board.look(seen.revision);
    assert_eq!(changed.rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["a"]);
    let html = view::row(&changed.rows[0]).into_string();
    assert!(html.contains("50 % read"), "{html}");
    board.deleted("b");
    assert_eq!(board.look(0).rows.len(), 1);
}

#[test]
fn a_receipt_of_another_version_is_not_the_rows() {
    let board = Board::default();
    let other = Upload { key: "k".to_owned(), version_id: Some("other".to_owned()), ..Upload::default() };
    board.uploaded(other);
    let receipt: gantry::receipt::Receipt = serde_json::from_value(receipt("failed", "failed")).unwrap();
    board.receipt("k", receipt.clone());
    assert_eq!(board.look(0).rows[0].state(), None);
    board.uploaded(Upload { key: "k".to_owned(), version_id: Some(HOSTILE.to_owned()), ..Upload::default() });
    board.receipt("k", receipt);
    assert_eq!(board.look(0).counts.failed, 1);
}
