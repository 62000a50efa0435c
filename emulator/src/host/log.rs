//! What functions print, and the records that Lambda adds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::broadcast,
    task::JoinHandle,
};

use crate::clock;

/// One line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The function's logical id.
    pub function: String,
    /// The invocation during which it was printed; `None` during initialisation.
    pub request_id: Option<String>,
    /// When the host read it.
    pub time: Timestamp,
    /// The line, without its end; Lambda's own records are JSON with a `type` of `platform.…`.
    pub text: String,
}

/// Sends the lines of one environment to whoever listens.
#[derive(Debug, Clone)]
pub(super) struct Logger {
    function: String,
    request_id: Arc<Mutex<Option<String>>>,
    log: broadcast::Sender<LogLine>,
}

/// What `platform.report` says about an invocation.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) request_id: &'a str,
    pub(super) status: &'static str,
    pub(super) duration: Duration,
    pub(super) init_duration: Option<Duration>,
    pub(super) memory_size_mb: u32,
    /// `None` where the system does not tell.
    pub(super) max_memory_used_mb: Option<u64>,
}

impl Logger {
    pub(super) fn new(function: String, log: broadcast::Sender<LogLine>) -> Self {
        Self { function, request_id: Arc::default(), log }
    }

    /// Says which invocation the lines from now on belong to.
    pub(super) fn set_request(&self, request_id: Option<&str>) {
        *self.request_id.lock().unwrap_or_else(PoisonError::into_inner) = request_id.map(str::to_owned);
    }

    pub(super) fn line(&self, text: String) {
        let request_id = self.request_id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Nobody may be listening.
        let _sent = self.log.send(LogLine { function: self.function.clone(), request_id, time: clock::now(), text });
    }

    pub(super) fn platform(&self, kind: &str, record: &Value) {
        let record = json!({ "time": clock::now(), "type": kind, "record": record });
        self.line(record.to_string());
    }

    pub(super) fn report(&self, report: &Report<'_>) {
        let mut metrics = Map::from_iter([
            ("durationMs".to_owned(), milliseconds(report.duration)),
            ("memorySizeMB".to_owned(), report.memory_size_mb.into()),
        ]);
        if let Some(used) = report.max_memory_used_mb {
            metrics.insert("maxMemoryUsedMB".to_owned(), used.into());
        }
        if let Some(init) = report.init_duration {
            metrics.insert("initDurationMs".to_owned(), milliseconds(init));
        }
        self.platform(
            "platform.report",
            &json!({
                "requestId": report.request_id,
                "status": report.status,
                "metrics": metrics,
            }),
        );
    }

    /// Sends every line of `output` until it ends.
    pub(super) fn follow(&self, output: Option<impl AsyncRead + Unpin + Send + 'static>) -> Option<JoinHandle<()>> {
        let mut lines = BufReader::new(output?);
        let logger = self.clone();
        Some(tokio::spawn(async move {
            let mut line = Vec::new();
            while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
                let text = String::from_utf8_lossy(&line);
                logger.line(text.trim_end_matches(['\n', '\r']).to_owned());
                line.clear();
            }
        }))
    }
}

/// Milliseconds with three decimals, as Lambda prints them.
pub(super) fn milliseconds(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 1_000_000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_line_is_sent_with_its_invocation() {
        let (log, mut lines) = broadcast::channel(16);
        let logger = Logger::new("Import".to_owned(), log);
        logger.set_request(Some("r1"));
        let output = &b"one\r\ntwo\xff\n\nunfinished"[..];
        logger.follow(Some(output)).unwrap().await.unwrap();
        let mut texts = Vec::new();
        while let Ok(line) = lines.try_recv() {
            assert_eq!((line.function.as_str(), line.request_id.as_deref()), ("Import", Some("r1")));
            texts.push(line.text);
        }
        assert_eq!(texts, ["one", "two\u{fffd}", "", "unfinished"]);
    }

    #[test]
    fn reports_have_lambdas_shape() {
        let (log, mut lines) = broadcast::channel(16);
        let logger = Logger::new("Import".to_owned(), log);
        logger.report(&Report {
            request_id: "r1",
            status: "success",
            duration: Duration::from_micros(1_234_567),
            init_duration: None,
            memory_size_mb: 3008,
            max_memory_used_mb: Some(97),
        });
        let record: Value = serde_json::from_str(&lines.try_recv().unwrap().text).unwrap();
        assert_eq!(record["type"], "platform.report");
        assert_eq!(
            record["record"],
            json!({
                "requestId": "r1", "status": "success",
                "metrics": { "durationMs": 1234.567, "memorySizeMB": 3008, "maxMemoryUsedMB": 97 },
            })
        );
    }
}
