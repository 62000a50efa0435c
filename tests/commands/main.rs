//! The program as people use it: what it prints, its exit codes, and the lines that `up` tells them to paste.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

mod account;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use clap::CommandFactory as _;
use local::samples::{Image, docker_archive, layer, oci_archive};
use serde_json::Value;
use tempfile::TempDir;

const GANTRY: &str = env!("CARGO_BIN_EXE_gantry-under-test");

fn image(seed: u32) -> Image {
    Image::new("amd64", vec![layer("app", seed, 80_000)])
}

/// A folder with `my-app.tar`, an archive cut off, and a page of text.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let whole = docker_archive(&[(&image(1), &["registry.example/team/my-app:1.4.2"])]);
    std::fs::write(folder.path().join("my-app.tar"), &whole).unwrap();
    std::fs::write(folder.path().join("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path().join("page.txt"), "hello\n".repeat(200)).unwrap();
    std::fs::write(folder.path().join("multi.tar"), oci_archive(&[&image(2)], "2.0").0).unwrap();
    folder
}

fn gantry(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(GANTRY).current_dir(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `gantry` and checks the exit code and what is said on each side.
fn check(folder: &Path, arguments: &[&str], code: i32, out: &[&str], err: &[&str]) -> String {
    let output = gantry(folder, arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
    for words in out {
        assert!(stdout.contains(words), "{arguments:?}: no {words:?} in\n{stdout}");
    }
    for words in err {
        assert!(stderr.contains(words), "{arguments:?}: no {words:?} in\n{stderr}");
    }
    stdout
}

#[test]
fn the_demo_tells_its_story_in_seven_lines() {
    let folder = tempfile::tempdir().unwrap();
    let story = check(
        folder.path(),
        &["demo"],
        0,
        &["latest points to it", "reused and not even read", "byte for byte", "must not be used: critical"],
        &[],
    );
    assert_eq!(story.lines().count(), 7, "{story}");
    assert!(!folder.path().join(".gantry").exists(), "the demo leaves nothing behind");
}

#[test]
fn import_status_and_plan_say_what_is_and_end_with_the_right_code() {
    let folder = folder();
    let folder = folder.path();
    check(folder, &["status"], 0, &["nothing has been uploaded yet"], &[]);
    check(
        folder,
        &["import", "my-app.tar"],
        0,
        &["released  team/my-app:1.4.2", "import  ", "verify  read back whole", "release ", "digest  sha256:", " up"],
        &["1 of 2", "sent"],
    );
    check(folder, &["import", "my-app.tar", "--as", "team/other:2"], 0, &["released  team/other:2"], &[]);
    check(folder, &["import", "multi.tar", "--as", "team/multi"], 0, &["released  team/multi:2.0"], &[]);
    check(folder, &["status"], 0, &["all 3 uploads are released"], &[]);

    check(
        folder,
        &["import", "cut.tar"],
        1,
        &[],
        &["failed: nothing was tagged: the archive is cut off", "what to do: "],
    );
    check(folder, &["import", "page.txt"], 1, &[], &["the upload is text, not a tar archive"]);
    check(folder, &["import", "gone.tar"], 1, &[], &["cannot read gone.tar: No such file"]);
    check(folder, &["import", "."], 1, &[], &["cannot read .: "]);
    check(
        folder,
        &["import", "my-app.tar", "--as", "Team/App:1"],
        1,
        &[],
        &["ECR refuses the repository name \"Team/App\""],
    );
    check(folder, &["import"], 2, &[], &["Usage:"]);
    check(folder, &["import", "my-app.tar", "--set", "Compression=brotli"], 1, &[], &["Compression"]);

    check(folder, &["status"], 0, &["failed", "the archive is cut off", "3 of 6 uploads are not released"], &[]);
    check(folder, &["status", "cut.tar"], 0, &["failed     s3://uploads/cut.tar", "next: "], &[]);
    check(
        folder,
        &["status", "team/my-app:1.4.2"],
        0,
        &["released   s3://uploads/my-app.tar", "image ID  sha256:"],
        &[],
    );
    check(folder, &["status", "no/such:1"], 1, &[], &["there is no upload and no image called \"no/such:1\""]);
    let story = check(folder, &["status", "my-app.tar", "--json"], 0, &[], &[]);
    let story = serde_json::from_str::<Value>(&story).unwrap();
    assert_eq!((&story["state"], &story["receipt"]["state"]), (&"released".into(), &"released".into()));

    // Once more, with what it is now.
    check(
        folder,
        &["retry", "cut.tar"],
        1,
        &["goes round again"],
        &["failed: nothing was tagged: the archive is cut off", "what to do: "],
    );
    let again = check(folder, &["retry", "cut.tar", "--json"], 1, &[], &["the archive is cut off"]);
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap()["state"], "failed");
    check(folder, &["retry", "my-app.tar"], 1, &[], &["it is released already"]);
    check(folder, &["retry", "gone.tar"], 1, &[], &["there is no upload called \"gone.tar\""]);
    check(folder, &["retry"], 2, &[], &["Usage:"]);

    check(folder, &["plan", "my-app.tar"], 0, &["team/my-app:1.4.2 (named by the archive)", "compress and send"], &[]);
    check(folder, &["plan", "cut.tar"], 1, &[], &["would be refused: the archive is cut off"]);
    let plan = check(folder, &["plan", "my-app.tar", "--as", "a/b:1", "--json"], 0, &[], &[]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["images"][0]["repository"], "a/b");
    assert_eq!(plan["images"][0]["blobs"][1]["action"], "compress");
}

#[test]
fn policy_says_what_a_file_means_and_what_it_would_do() {
    let folder = folder();
    let folder = folder.path();
    let policy = "max_severity = \"medium\"\nrequired_labels = [\"team\"]\n\n[[repository]]\nmatch = \"team/*\"\n\
                  required_labels = []\n\n[[exception]]\nid = \"CVE-2026-0002\"\nrepository = \"*\"\n\
                  reason = \"not reachable\"\nowner = \"ann\"\nexpires = 2099-01-31\n";
    std::fs::write(folder.join("policy.toml"), policy).unwrap();
    let two = format!("{policy}\n[[repository]]\nmatch = \"*/base\"\nmax_severity = \"none\"\n");
    std::fs::write(folder.join("two.toml"), two).unwrap();
    let both = [
        "where it is both team/* and */base, whose rules are taken in this order:\n  of findings of any kind, none is",
    ];
    check(folder, &["policy", "check", "two.toml"], 0, &both, &[]);
    std::fs::write(folder.join("wrong.toml"), "fixable_only = true\nmax_severity = \"hgih\"\n").unwrap();
    check(
        folder,
        &["policy", "check", "policy.toml"],
        0,
        &[
            "at most medium is allowed",
            "the label team is required",
            "where the repository is team/*",
            "(ann, until 2099",
        ],
        &[],
    );
    check(
        folder,
        &["policy", "check", "wrong.toml"],
        1,
        &[],
        &["wrong.toml is no policy: line 2: unknown variant `hgih`, expected one of `none`"],
    );
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let meaning = json(check(folder, &["policy", "check", "policy.toml", "--json"], 0, &[], &[]));
    assert_eq!(meaning["everywhere"]["required_labels"], serde_json::json!(["team"]));
    assert_eq!(meaning["exceptions"][0]["owner"], "ann");
    check(folder, &["policy", "check", "gone.toml"], 1, &[], &["cannot read gone.toml"]);
    check(folder, &["policy"], 2, &[], &["Usage:"]);

    std::fs::create_dir(folder.join(".gantry")).unwrap();
    let findings = r#"[{"repository": "*", "findings": [
        {"name": "CVE-2026-0001", "severity": "HIGH", "package": "openssl", "version": "3.0.1"},
        {"name": "CVE-2026-0002", "severity": "CRITICAL"}]}]"#;
    std::fs::write(folder.join(".gantry/findings.json"), findings).unwrap();
    // The default allows neither of them: the critical one is only the file's exception.
    let held = "held: team/app:1 is in ECR and must not be used: critical CVE-2026-0002";
    check(folder, &["import", "my-app.tar", "--as", "team/app:1", "--set", "ReleaseGate=scan"], 1, &[], &[held]);
    check(
        folder,
        &["policy", "explain", "team/app:1"],
        0,
        &["it was verified at", "its verdict is fail by policy default", "it is not released", "says now: fail"],
        &[],
    );
    check(
        folder,
        &["policy", "explain", "team/app:1", "--policy", "policy.toml"],
        0,
        &[
            "high CVE-2026-0001 in openssl 3.0.1; at most medium is allowed",
            "CVE-2026-0002 is taken out by an exception",
        ],
        &[],
    );
    let explained = json(check(folder, &["policy", "explain", "team/app:1", "--json"], 0, &[], &[]));
    assert_eq!(explained["verdict"]["outcome"], "fail");
    assert_eq!(explained["now"][0]["judgement"]["allows_release"], false);
    check(folder, &["import", "multi.tar", "--as", "team/multi:1", "--set", "ReleaseGate=scan"], 1, &[], &["held: "]);
    check(
        folder,
        &["policy", "explain", "team/multi:1"],
        0,
        &["linux/amd64 sha256:", "because critical CVE-2026-0002", "a release of the index waits"],
        &[],
    );
    check(folder, &["policy", "explain", "team/app:2"], 1, &[], &["there is no image called \"team/app:2\""]);
    check(folder, &["policy", "explain", "nonsense"], 1, &[], &["wanted REPOSITORY:TAG"]);
    check(folder, &["status", "team/app:1"], 0, &["verdict   fail by policy default: critical CVE-2026-0002"], &[]);
}

#[test]
fn help_names_every_command_and_shells_complete_them() {
    let folder = tempfile::tempdir().unwrap();
    let help = check(folder.path(), &["help"], 0, &["Begin here:", "Examples:", "Exit codes:"], &[]);
    let commands = local::cli::Cli::command();
    for command in commands.get_subcommands().filter(|command| !command.is_hide_set()) {
        let named = help.lines().any(|line| line.starts_with(&format!("  {} ", command.get_name())));
        assert!(named, "help does not name {}", command.get_name());
        check(folder.path(), &["help", command.get_name()], 0, &["Usage: "], &[]);
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = check(folder.path(), &["completions", shell], 0, &["gantry", "retry", "page-port"], &[]);
        std::fs::write(folder.path().join("completions"), script).unwrap();
        if has(shell) {
            let read = Command::new(shell).arg("-n").arg(folder.path().join("completions")).output().unwrap();
            assert!(read.status.success(), "{shell}: {}", text(&read.stderr));
        }
    }
    check(folder.path(), &["completions", "cmd"], 2, &[], &["possible values"]);
}

#[test]
fn programs_get_json_and_tickets_get_a_page() {
    let folder = folder();
    let folder = folder.path();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let receipt = check(folder, &["import", "my-app.tar", "--as", "team/app:1", "--json"], 0, &[], &[]);
    assert_eq!(json(&receipt)["state"], "released");
    let receipt = check(folder, &["import", "cut.tar", "--json"], 1, &[], &["the archive is cut off"]);
    assert_eq!(json(&receipt)["state"], "failed");
    let receipts = check(folder, &["demo", "--json"], 0, &[], &[]);
    let states: Vec<Value> = receipts.lines().map(|line| json(line)["state"].clone()).collect();
    assert_eq!(states, ["released", "released", "released", "held"]);

    check(folder, &["status", "cut.tar", "--html", "story.html"], 0, &["story.html is the page of cut.tar"], &[]);
    let page = std::fs::read_to_string(folder.join("story.html")).unwrap();
    for words in ["What to do: ", "the archive is cut off", "Content-Security-Policy", "Import Failed"] {
        assert!(page.contains(words), "no {words:?} in the page");
    }
    check(folder, &["status", "gone.tar", "--html", "story.html"], 1, &[], &["there is no upload \"gone.tar\""]);
    check(folder, &["status", "cut.tar", "--html", "no/such/folder.html"], 1, &[], &["cannot write no/such"]);
    check(folder, &["status", "--html", "story.html"], 2, &[], &["Usage:"]);
}

/// A running `gantry up` in `folder`.
struct Up {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    lines: Vec<String>,
}

impl Up {
    /// Starts it on any port and reads what it prints, up to the last command.
    fn start(folder: &Path, more: &[&str]) -> Self {
        let arguments = [["up", "--port", "0"].as_slice(), more].concat();
        let child = Command::new(GANTRY).current_dir(folder).args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.starts_with("skopeo")) {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "up ended: {lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        Self { child, output, lines }
    }

    /// What to put in front of a command: the `export` lines.
    fn exports(&self) -> String {
        let exports = self.lines.iter().filter(|line| line.starts_with("export "));
        exports.flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Where it listens.
    fn endpoint(&self) -> String {
        let named = self.lines.iter().find_map(|line| line.strip_prefix("export AWS_ENDPOINT_URL="));
        named.unwrap().to_owned()
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) -> String {
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        rest
    }
}

fn has(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|found| found.status.success())
}

fn shell(folder: &Path, script: &str) -> Output {
    Command::new("sh").current_dir(folder).args(["-c", script]).output().unwrap()
}

#[test]
fn every_line_that_up_prints_works_where_its_program_is_there() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gantry-wait"), folder.path().join("docs/gantry-wait"))
        .unwrap();
    let up = Up::start(folder.path(), &[]);
    let exports = up.exports();
    assert!(up.lines[0].starts_with("# the page of this stack: http://127.0.0.1:"), "{:?}", up.lines);
    let docker = has("docker") && shell(folder.path(), "docker info").status.success();
    let mut ran = 0;
    for line in up.lines.iter().filter(|line| !line.starts_with('#') && !line.starts_with("export")) {
        let there = |program: &str| !line.contains(program) || has(program);
        let needs_aws = line.starts_with("aws") || line.contains("$(aws") || line.starts_with("docs/");
        if (needs_aws && !has("aws")) || !there("skopeo") || (line.contains("docker ") && !docker) {
            pipeline_tests::say(&format!("not run, its program is not there: {line}"));
            continue;
        }
        let output = shell(folder.path(), &format!("{exports}{line}"));
        assert!(output.status.success(), "{line}\n{}\n{}", text(&output.stdout), text(&output.stderr));
        ran += 1;
    }
    pipeline_tests::say(&format!("checked {ran} lines of up"));
    // Another command on the same folder talks to the stack that runs.
    check(folder.path(), &["import", "multi.tar", "--as", "team/multi"], 0, &["docker pull 127.0.0.1:"], &[]);
    assert!(up.interrupt().contains("stopping"));
}

#[test]
fn gantry_wait_believes_only_the_receipt_of_its_own_upload() {
    if !has("aws") {
        pipeline_tests::say("checked no gantry-wait: the AWS CLI is not there");
        return;
    }
    let folder = folder();
    let up = Up::start(folder.path(), &[]);
    let exports = up.exports();
    let wait = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gantry-wait");
    let upload = |file: &str, key: &str| {
        let output = shell(
            folder.path(),
            &format!("{exports}aws s3 cp --no-progress {file} s3://uploads/{key} && {wait} s3://uploads/{key} 60"),
        );
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, receipt, error) = upload("my-app.tar", "team/my-app/1.tar");
    assert_eq!(code, Some(0), "{receipt}{error}");
    assert!(receipt.contains("\"state\": \"released\""), "{receipt}");
    // The same key again, with a file that is bad: the first receipt says released, and is not believed.
    let (code, receipt, error) = upload("cut.tar", "team/my-app/1.tar");
    assert_eq!(code, Some(1), "{receipt}{error}");
    assert!(receipt.contains("\"state\": \"failed\""), "{receipt}");
    let (code, receipt, error) = upload("my-app.tar", "team/my-app/1.tar");
    assert_eq!(code, Some(0), "{receipt}{error}");

    let usage = shell(folder.path(), &format!("{wait} nonsense"));
    assert_eq!(usage.status.code(), Some(2));
    let absent = shell(folder.path(), &format!("{exports}{wait} s3://uploads/absent.tar 1"));
    assert_eq!(absent.status.code(), Some(1));
    up.interrupt();

    // Nobody imports: no answer in time.
    let up = Up::start(folder.path(), &["--no-functions"]);
    let script = format!(
        "{}aws s3 cp --no-progress my-app.tar s3://uploads/team/late/1.tar && {wait} s3://uploads/team/late/1.tar 1",
        up.exports()
    );
    assert_eq!(shell(folder.path(), &script).status.code(), Some(3));
    up.interrupt();
    pipeline_tests::say("checked gantry-wait with the AWS CLI");
}
