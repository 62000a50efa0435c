//! `gantry up`: the stack stays, for `aws`, `docker` and `skopeo`.

use std::sync::Arc;

use emulator::account;
use emulator::stack::Stack;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{CommandError, StackArgs, UpArgs};
use crate::page::{Facts, Page, Shown, Sources, follow};
use crate::session::{Functions, SessionError, s3_client, start};
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
    let page = page(&args, &running).await?;
    let (url, closing) = (page.url(), CancellationToken::new());
    let uploads = running.bucket("Uploads").unwrap_or("uploads");
    let shown = shown(&running, uploads);
    let sources = Sources { s3: shown.s3.clone(), uploads: uploads.to_owned(), bus: running.bus(), log: running.log() };
    let following = tokio::spawn(follow(Arc::clone(&shown.board), sources));
    let serving = tokio::spawn(page.serve(shown, closing.clone()));
    let findings = stack.data.join("findings.json");
    if args.json {
        let where_it_is = json!({
            "page": url, "endpoint": running.endpoint(), "registry": running.registry_host(), "uploads": uploads,
        });
        say(where_it_is.to_string());
    } else {
        say(format!("# the page of this stack: {url}"));
        for line in guide(running.endpoint(), running.registry_host(), uploads, &findings.display().to_string()) {
            say(line);
        }
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    if !args.json {
        say("stopping; uploads that are not finished go on with the next `up`");
    }
    closing.cancel();
    following.abort();
    // It has nothing to say but that it was told to end.
    drop(serving.await);
    running.stop().await;
    Ok(())
}

/// The page's port: the one that was asked for, else the next one after the stack's, else any that is free.
async fn page(args: &UpArgs, running: &Stack) -> Result<Page, CommandError> {
    if let Some(port) = args.page_port {
        return Ok(Page::open(port).await?);
    }
    let next = running.endpoint().rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()?.checked_add(1));
    match next.filter(|_| args.port != 0) {
        Some(port) => match Page::open(port).await {
            Ok(page) => Ok(page),
            Err(_) => Ok(Page::open(0).await?),
        },
        None => Ok(Page::open(0).await?),
    }
}

fn shown(running: &Stack, uploads: &str) -> Shown {
    let facts = Facts {
        stack: account::STACK.to_owned(),
        endpoint: running.endpoint().to_owned(),
        uploads: uploads.to_owned(),
    };
    Shown {
        facts,
        board: Arc::default(),
        s3: s3_client(running.endpoint()),
        topics: Arc::clone(running.topics()),
        topic: running.topic_arn("Topic").unwrap_or_default().to_owned(),
    }
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
