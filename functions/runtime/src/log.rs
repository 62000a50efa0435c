//! Structured log lines on standard output, as Lambda's JSON log format has them.

use gantry::import::PROGRESS_TARGET;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The crates whose records are our own.
const OURS: [&str; 6] = ["gantry", "runtime", "import", "on_push", "on_scan", "reconcile"];

/// Our own records at `AWS_LAMBDA_LOG_LEVEL` (info unless set); other crates only when they warn, since at debug
/// level they print headers.
#[expect(clippy::disallowed_methods, reason = "logging starts before the configuration is read, to tell its errors")]
pub(crate) fn init() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok();
    let level: LevelFilter =
        level.and_then(|level| level.to_ascii_lowercase().parse().ok()).unwrap_or(LevelFilter::INFO);
    let ours = OURS.map(|target| (target, level));
    let ours = Targets::new().with_default(LevelFilter::WARN).with_targets(ours).with_target(PROGRESS_TARGET, level);
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    // Set already when a test runs two functions in one process.
    tracing_subscriber::registry().with(lines).with(ours).try_init().ok();
}
