//! `status` and `retry` as against an account: another AWS by its address, credentials from the environment alone.

use std::path::Path;
use std::process::Output;

use aws_sdk_ecr::types::ImageIdentifier;
use serde_json::Value;

use crate::{GANTRY, Up, folder, shell, text};

/// Runs `gantry` in `folder` with the variables that `up` prints.
fn gantry(folder: &Path, exports: &str, arguments: &str) -> Output {
    shell(folder, &format!("{exports}exec {GANTRY} {arguments}"))
}

/// The same, and checks the exit code and what is said: on standard output after 0, else on standard error.
fn check(folder: &Path, exports: &str, arguments: &str, code: i32, words: &[&str]) -> String {
    let output = gantry(folder, exports, arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments}\n{stdout}\n{stderr}");
    let said = if code == 0 { &stdout } else { &stderr };
    for words in words {
        assert!(said.contains(words), "{arguments}: no {words:?} in\n{said}");
    }
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_retry_work_against_an_account() {
    let folder = folder();
    let up = Up::start(folder.path(), &[]);
    let exports = up.exports();
    let endpoint = up.endpoint();
    let elsewhere = tempfile::tempdir().unwrap();
    let here = elsewhere.path();
    let import = |file: &str, name: &str| {
        let output = shell(folder.path(), &format!("{GANTRY} import {file} --as {name}"));
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(import("my-app.tar", "team/app:1").0, Some(0));
    // Another image under the same immutable tag.
    std::fs::copy(folder.path().join("multi.tar"), folder.path().join("team-app-2.tar")).unwrap();
    let (code, error) = import("team-app-2.tar", "team/app:1,1-copy");
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("immutable and names another image"), "{error}");

    let account = "--uploads uploads --state state";
    let queue = format!("{account} --queue {endpoint}/123456789012/import-queue");
    let all = check(here, &exports, &format!("status {account}"), 0, &["1 of 2 uploads are not released"]);
    assert!(all.contains("failed     s3://uploads/team-app-2.tar") && !all.contains("team/app/1.tar"), "{all}");
    let story = ["released   s3://uploads/team/app/1.tar", "verified  passed", "released  by verification", "told"];
    check(here, &exports, &format!("status team/app/1.tar {account}"), 0, &story);
    check(here, &exports, &format!("status s3://uploads/team/app/1.tar {account}"), 0, &story[..1]);
    check(here, &exports, &format!("status team/app:1 {account}"), 0, &story[..1]);
    check(here, &exports, &format!("status nothing.tar {account}"), 1, &["there is no upload and no image"]);
    let json = check(here, &exports, &format!("status --json {account}"), 0, &[]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["state"], &json[0]["receipt"]["state"]), (&"failed".into(), &"failed".into()), "{json:#}");
    assert_eq!(json[0]["steps"][0]["what"], "uploaded");

    // What says nothing else is told what to do.
    let retry = |key: &str| format!("retry {key} {queue}");
    check(here, &exports, &format!("retry team-app-2.tar {account}"), 1, &["which queue", "the stack's output Retry"]);
    check(here, &exports, &retry("team/app/1.tar"), 1, &["it is released already", "docker pull"]);
    check(here, &exports, &retry("nothing.tar"), 1, &["there is no upload called \"nothing.tar\""]);

    // The tag is free, so the same upload goes through.
    let ecr = local::session::ecr_client(&endpoint);
    let tag = ImageIdentifier::builder().image_tag("1").build();
    ecr.batch_delete_image().repository_name("team/app").image_ids(tag).send().await.unwrap();
    check(here, &exports, &retry("team-app-2.tar"), 0, &["goes round again", "docs/gantry-wait s3://uploads/team-app"]);
    let released = format!("status team-app-2.tar {account}");
    let mut said = String::new();
    for _ in 0..200 {
        said = text(&gantry(here, &exports, &released).stdout);
        if said.starts_with("released") {
            break;
        }
    }
    assert!(said.starts_with("released   s3://uploads/team-app-2.tar"), "{said}");

    assert!(!here.join(".gantry").exists(), "nothing is started here");
    up.interrupt();
}

/// Neither a file nor a role of the machine is asked for credentials.
#[test]
fn credentials_come_from_the_environment_alone() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("credentials");
    std::fs::write(&profile, "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n").unwrap();
    let exports = format!(
        "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; export AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_REGION=eu-central-1 \
         AWS_SHARED_CREDENTIALS_FILE={}\n",
        profile.display()
    );
    check(folder.path(), &exports, "status --uploads uploads", 1, &["AWS_ACCESS_KEY_ID"]);
}

/// Nobody imports: what waits is said to wait, and is not sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_first_delivery_is_left_alone() {
    let folder = folder();
    let up = Up::start(folder.path(), &["--no-functions"]);
    let (exports, endpoint) = (up.exports(), up.endpoint());
    let body = std::fs::read(folder.path().join("my-app.tar")).unwrap();
    let put = pipeline_tests::client(&endpoint).put_object().bucket("uploads").key("team/late/1.tar");
    put.body(body.into()).send().await.unwrap();
    let waiting =
        ["waiting    s3://uploads/team/late/1.tar", "no delivery has begun", "1 of 1 uploads are not released"];
    check(folder.path(), "", "status", 0, &waiting);
    let queue = format!("{endpoint}/123456789012/import-queue");
    let arguments = format!("retry team/late/1.tar --uploads uploads --queue {queue}");
    check(folder.path(), &exports, &arguments, 1, &["its event may be on its way", "docs/gantry-wait"]);
    check(folder.path(), "", "retry team/late/1.tar", 1, &["its event may be on its way"]);
    up.interrupt();
}
