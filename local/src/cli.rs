//! The command line, and what each exit code means: 0 done, 1 refused or failed (the reason on standard error),
//! 2 usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::page::PageError;
use crate::session::SessionError;
use crate::{demo, import, plan, policy, retry, status, up};

/// The commands in the order in which one meets them; a test holds it against what there is.
const HELP: &str = "\
{about}

Usage: {usage}

Begin here:
  demo         Three small sample images through the whole pipeline, in a temporary folder
  plan         What would be imported from a tarball, without doing it
  import       A tarball through the whole pipeline, until it is released

Stay:
  up           Keep the stack running, with a page in the browser, for aws, docker and skopeo

Look and act, here or in an account (--uploads):
  status       What is not released and what to do; or the story of one upload
  retry        Send an upload round again
  policy       Check a policy file, or explain what the policy says of an image

The shell:
  completions  What makes bash, zsh, fish, elvish or PowerShell complete commands and options
  help         This, or the help of one command

Options:
{options}{after-help}
";

/// What to type.
const EXAMPLES: &str = "\
Examples:
  gantry demo
  docker save my-app:1.4.2 -o my-app.tar && gantry import my-app.tar --as team/my-app:1.4.2
  gantry up                                    # open the address that its first line names
  gantry status                                # what is not released, and what to do
  gantry status team/my-app/1.4.2.tar --html story.html
  GANTRY_UPLOADS=my-bucket gantry status       # of a stack in an account
  source <(gantry completions bash)

Colour and bars are for terminals; NO_COLOR turns colour off, and --json is for programs.
Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 usage.";

/// An image tarball dropped in a bucket becomes a verified, tagged image in ECR: the whole pipeline on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version = gantry::version::VERSION,
    max_term_width = 100,
    help_template = HELP,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    stack: StackArgs,
}

/// Which stack the command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct StackArgs {
    /// The folder that holds buckets, registry and queues
    #[arg(long, global = true, default_value = ".gantry", value_name = "FOLDER")]
    pub(crate) data: PathBuf,
    /// A template parameter, such as Compression=gzip-6; see template.yaml. May be given several times
    #[arg(long = "set", global = true, value_name = "PARAMETER=VALUE", value_parser = parameter)]
    pub(crate) parameters: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run three small sample images through the whole pipeline, in a temporary folder
    Demo(DemoArgs),
    /// Import an image tarball, as an upload to the bucket would be
    Import(ImportArgs),
    /// Keep the stack running, and print how to use it with aws, docker and skopeo
    Up(UpArgs),
    /// Say what would be imported, under which names, from which bytes, without doing it
    Plan(PlanArgs),
    /// Say what is not released, or tell the story of one upload
    Status(StatusArgs),
    /// Send an upload round again: one that failed, or that nothing is heard of
    Retry(RetryArgs),
    /// Check a policy file, or explain what the policy says of an image
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print what makes a shell complete this program's commands and options
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run as a function's process; the Lambda host of the stack does this
    #[command(hide = true)]
    Function {
        /// The function's name
        name: String,
    },
}

/// What `demo` is given.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Print the receipts as lines of JSON instead of the story
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `import` is given.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The tarball
    pub(crate) file: PathBuf,
    /// Print the receipt as JSON, whatever became of the upload
    #[arg(long)]
    pub(crate) json: bool,
    /// What to call the image; without it, the archive's own names count
    #[arg(long = "as", value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
    /// Who runs the image: exact, lambda or fargate; without it, the template's parameter Profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// The platform that the profile lambda takes, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

/// What `up` is given.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The port on 127.0.0.1; 0 for any free one
    #[arg(long, default_value_t = up::DEFAULT_PORT)]
    pub(crate) port: u16,
    /// Leave the queues alone: uploads wait, and the functions can be run by hand
    #[arg(long)]
    pub(crate) no_functions: bool,
    /// The page's port on 127.0.0.1; the one after --port unless it is taken, and 0 for any free one
    #[arg(long)]
    pub(crate) page_port: Option<u16>,
    /// Print where everything is as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `plan` is given.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The tarball
    pub(crate) file: PathBuf,
    /// What to call the image, as for import
    #[arg(long = "as", value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
    /// Who runs the image: exact, lambda or fargate; without it, the template's parameter Profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// The platform that the profile lambda takes, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `status` is given.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// An upload's key, or an image; without it, every upload that is not released
    #[arg(value_name = "KEY | REPOSITORY:TAG")]
    pub(crate) what: Option<String>,
    /// Print the stories as JSON, receipts included
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the upload's page to a file that needs nothing else, for a ticket
    #[arg(long, value_name = "FILE", requires = "what", conflicts_with = "json")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) account: AccountArgs,
}

/// What `retry` is given.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The upload's key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Print the receipt it ends with as JSON; from an account, which version was sent round
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) account: AccountArgs,
}

/// Which stack in an account is meant instead of the one on this machine. Credentials and region come from the
/// environment alone.
#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// The upload bucket of a stack in an account; without it, the stack on this machine is meant
    #[arg(long, env = "GANTRY_UPLOAD_BUCKET", value_name = "BUCKET")]
    pub(crate) uploads: Option<String>,
    /// Its state bucket, for what only the records tell
    #[arg(long, env = "GANTRY_STATE_BUCKET", value_name = "BUCKET")]
    pub(crate) state: Option<String>,
    /// The URL of its import queue, for sending uploads round again
    #[arg(long, env = "GANTRY_IMPORT_QUEUE_URL", value_name = "URL")]
    pub(crate) queue: Option<String>,
}

/// What `policy` is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what a policy file means, or where it is wrong
    Check {
        /// The file
        file: PathBuf,
        /// Print what it means as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether an image would be released, and why
    Explain {
        /// The image
        #[arg(value_name = "REPOSITORY:TAG")]
        image: String,
        /// Judge by this file instead of the policy in force
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("wanted PARAMETER=VALUE, such as Compression=gzip-6".to_owned()),
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The stack could not be reached or started.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is no page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A policy file that is wrong.
    #[error("{} is no policy", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: gantry::react::policy::PolicyError,
    },
    /// The upload itself was refused, held or overtaken; the words are the receipt's.
    #[error("{summary}\n  what to do: {next}")]
    NotReleased {
        /// What became of it.
        summary: String,
        /// What to do.
        next: String,
    },
    /// It would do harm, or no good.
    #[error("{what}\n  what to do: {fix}")]
    Refused {
        /// Why not.
        what: String,
        /// What to do.
        fix: String,
    },
    /// There is nothing of that name.
    #[error("{0}")]
    NothingThere(String),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The function's process ended with an error.
    #[error("the function ended")]
    Function(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the command, and turns its end into an exit code.
pub fn run(cli: Cli) -> ExitCode {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "gantry", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    // The HTTP client wants to be told which TLS stack there is, even for plain HTTP.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let Cli { command, stack } = cli;
    let outcome = runtime.block_on(async {
        match command {
            Command::Demo(args) => Box::pin(demo::run(stack, args)).await,
            Command::Import(args) => Box::pin(import::run(stack, args)).await,
            Command::Up(args) => Box::pin(up::run(stack, args)).await,
            Command::Plan(args) => Box::pin(plan::run(stack, args)).await,
            Command::Status(args) => Box::pin(status::run(stack, args)).await,
            Command::Retry(args) => Box::pin(retry::run(stack, args)).await,
            Command::Policy(command) => Box::pin(policy::run(stack, command)).await,
            // Answered above, without a runtime.
            Command::Completions { .. } => Ok(()),
            Command::Function { name } => Box::pin(function(&name)).await,
        }
    });
    // Whatever still waits for input or the network must not keep the program from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "this is where the program tells people why it failed")]
fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("gantry: {}", gantry::disposition::chain(error));
    ExitCode::FAILURE
}

/// Is the function until its host ends it, or is gone: the host holds the other end of standard input.
async fn function(name: &str) -> Result<(), CommandError> {
    let run = async {
        match name {
            "import" => ::import::run().await,
            "on-push" => on_push::run().await,
            "on-scan" => on_scan::run().await,
            "reconcile" => reconcile::run().await,
            _ => Err(format!("there is no function {name:?}; wanted import, on-push, on-scan or reconcile").into()),
        }
    };
    tokio::select! {
        outcome = run => outcome.map_err(CommandError::Function),
        () = host_is_gone() => Ok(()),
    }
}

async fn host_is_gone() {
    let mut input = tokio::io::stdin();
    // Nothing is ever written to it, so this ends when it is closed.
    tokio::io::copy(&mut input, &mut tokio::io::sink()).await.ok();
}
