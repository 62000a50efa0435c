//! `gantry up`: the stack stays, for `aws`, `docker` and `skopeo`.

use emulator::account;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{CommandError, StackArgs, UpArgs};
use crate::session::{Functions, SessionError, start};
use crate::story::say;

/// Where `up` listens unless told otherwise, so that image names stay the same from one time to the next.
pub(crate) const DEFAULT_PORT: u16 = 4580;

pub(crate) async fn run(stack: StackArgs, args: UpArgs) -> Result<(), CommandError> {
    let functions = if args.no_functions { Functions::Leave } else { Functions::Run };
    // Before anything is started, so that no signal can come too early.
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| SessionError::request("waiting for Ctrl-C", error))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| SessionError::request("waiting for Ctrl-C", error))?;
    let running = start(&stack, args.port, functions).await?;
    let uploads = running.bucket("Uploads").unwrap_or("uploads");
    let findings = stack.data.join("findings.json");
    for line in guide(running.endpoint(), running.registry_host(), uploads, &findings.display().to_string()) {
        say(line);
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    say("stopping; uploads that are not finished go on with the next `up`");
    running.stop().await;
    Ok(())
}

/// What to paste. Lines that begin with `#` are for reading, the others are commands.
fn guide(endpoint: &str, registry: &str, uploads: &str, findings: &str) -> Vec<String> {
    let upload = format!("s3://{uploads}/team/my-app/1.4.2.tar");
    let image = format!("{registry}/team/my-app:1.4.2");
    [
        "# the stack is running; Ctrl-C ends it. In another terminal:".to_owned(),
        format!("export AWS_ENDPOINT_URL={endpoint}"),
        format!(
            "export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_DEFAULT_REGION={}",
            account::USER_ACCESS_KEY_ID,
            account::USER_SECRET,
            account::REGION
        ),
        "# upload an image, wait for it, look at it".to_owned(),
        format!("aws s3 cp my-app.tar {upload}"),
        format!("docs/gantry-wait {upload}"),
        "aws ecr describe-images --repository-name team/my-app".to_owned(),
        format!("# there is no scanner here: what scans find stands in {findings}, see docs/policy.md"),
        "# pull it".to_owned(),
        format!("aws ecr get-login-password | docker login --username AWS --password-stdin {registry}"),
        format!("docker pull {image}"),
        format!("skopeo inspect --tls-verify=false --creds \"AWS:$(aws ecr get-login-password)\" docker://{image}"),
    ]
    .to_vec()
}
