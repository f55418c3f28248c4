//! The report of a tool server: how it describes itself and its tools, read once for each of its starts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use mcp_fleet_policy::json::{Limits, Value, parse, write_str};
use mcp_fleet_policy::list::ObservedTools;
use mcp_fleet_policy::text::neutralise;
use tokio::sync::Mutex;

use super::exchange::epoch;
use super::{Upstream, UpstreamError};
use crate::envelope::{SERVER_PATH, ServerReport, VERSION};

/// How long a report is used without asking the shim again. A call's answer shows a new start of the server earlier.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// Shortest time between a failed read of the report and the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that the shim may take to send the report, which it has in memory.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the largest report that is read.
const MAX_REPORT: usize = 4 << 20;

/// A parsed report.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Epoch of the server when it gave this report: how often it had been started.
    pub(crate) epoch: u64,
    /// `serverInfo` and `instructions` of the server, made safe to show.
    pub(crate) about: About,
    /// The tools that the server offers.
    pub(crate) tools: ObservedTools,
    /// BLAKE3 of the report. The epoch alone does not identify it: a replaced pod counts its starts from one again.
    digest: [u8; 32],
}

/// What a client learns about the server itself, as JSON.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// An `Implementation` object.
    pub(crate) server_info: Option<Vec<u8>>,
    /// A string.
    pub(crate) instructions: Option<Vec<u8>>,
}

/// The last report, and the epoch in the last answer of the shim.
#[derive(Debug, Default)]
pub(super) struct ReportCache {
    report: ArcSwapOption<Report>,
    /// Milliseconds from `origin` to the last successful read.
    read_at: AtomicU64,
    origin: OnceLock<Instant>,
    epoch: AtomicU64,
    /// Held while a report is read. Contains the time of the last read if it failed.
    failed_at: Mutex<Option<Instant>>,
}

impl ReportCache {
    /// Stores the epoch of an answer.
    pub(super) fn note_epoch(&self, epoch: Option<u64>) {
        if let Some(epoch) = epoch
            && self.epoch.load(Ordering::Relaxed) != epoch
        {
            self.epoch.store(epoch, Ordering::Relaxed);
        }
    }

    /// Returns the last report if it is fresh and from the server's current start.
    fn fresh(&self, now: Instant) -> Option<Arc<Report>> {
        let report = self.report.load_full()?;
        let read_at = *self.origin.get()? + Duration::from_millis(self.read_at.load(Ordering::Relaxed));
        let fresh = now.saturating_duration_since(read_at) < FRESH_FOR;
        (fresh && report.epoch == self.epoch.load(Ordering::Relaxed)).then_some(report)
    }

    /// Stores a report that was just read. An unchanged report keeps its `Arc`, so that lists rendered from it stay
    /// valid.
    fn store(&self, report: Report, now: Instant) -> Arc<Report> {
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        self.read_at.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.note_epoch(Some(report.epoch));
        match self.report.load_full() {
            Some(previous) if previous.epoch == report.epoch && previous.digest == report.digest => previous,
            _ => {
                let report = Arc::new(report);
                self.report.store(Some(Arc::clone(&report)));
                report
            }
        }
    }
}

impl Upstream {
    /// Returns the server's report, and asks the shim for it if the cached one may be out of date. If the shim does not
    /// answer, returns the last report: a short outage must not change which tools are listed.
    pub(crate) async fn report(&self) -> Result<Arc<Report>, UpstreamError> {
        if let Some(report) = self.reports.fresh(Instant::now()) {
            return Ok(report);
        }
        let mut failed_at = self.reports.failed_at.lock().await;
        if let Some(report) = self.reports.fresh(Instant::now()) {
            return Ok(report);
        }
        if failed_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            // Requests that waited for the lock, and clients that retry, must not each wait for a timeout in turn.
            return self.reports.report.load_full().ok_or(UpstreamError::Paused);
        }
        let read = tokio::time::timeout(READ_TIMEOUT, self.read_report())
            .await
            .unwrap_or_else(|_| Err(UpstreamError::Connect(std::io::ErrorKind::TimedOut.into())));
        *failed_at = read.is_err().then(Instant::now);
        self.health.note(read.is_ok());
        match (read, self.reports.report.load_full()) {
            (Ok(report), _) => Ok(self.reports.store(report, Instant::now())),
            (Err(_), Some(previous)) => Ok(previous),
            (Err(error), None) => Err(error),
        }
    }

    async fn read_report(&self) -> Result<Report, UpstreamError> {
        let (mut connection, response) = self.request(Method::GET, SERVER_PATH, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(UpstreamError::Status(response.status()));
        }
        let epoch = epoch(response.headers()).ok_or(UpstreamError::Malformed("the report has no epoch"))?;
        let mut body = response.into_body();
        let mut text = BytesMut::new();
        while let Some(data) = connection.next_chunk(&mut body).await? {
            if text.len() + data.len() > MAX_REPORT {
                return Err(UpstreamError::TooLarge);
            }
            text.extend_from_slice(&data);
        }
        drop(body);
        self.pool.put(connection, Instant::now());
        let report: ServerReport =
            serde_json::from_slice(&text).map_err(|_| UpstreamError::Malformed("the report cannot be parsed"))?;
        if report.version != VERSION {
            return Err(UpstreamError::Malformed("the report has another version"));
        }
        Ok(Report {
            epoch,
            about: About::read(report.initialize.get()),
            tools: ObservedTools::new(report.tools.iter().map(|tool| tool.get())),
            digest: *blake3::hash(&text).as_bytes(),
        })
    }
}

impl About {
    /// Returns the number of bytes that an answer with this contains.
    pub(crate) fn length(&self) -> usize {
        [&self.server_info, &self.instructions].into_iter().flatten().map(Vec::len).sum()
    }

    /// Reads `serverInfo` and `instructions` from the `result` of `initialize`, as neutralised text.
    fn read(initialize: &str) -> Self {
        let Ok(value) = parse(initialize.as_bytes(), &Limits::RESULT) else { return Self::default() };
        Self {
            server_info: value.get("serverInfo").and_then(server_info),
            instructions: value.get("instructions").and_then(Value::as_str).map(|text| json(&neutralise(text))),
        }
    }
}

/// Returns name, version and title of an `Implementation` object, neutralised.
fn server_info(value: &Value<'_>) -> Option<Vec<u8>> {
    let (name, version) = (value.get("name")?.as_str()?, value.get("version")?.as_str()?);
    let mut out = b"{\"name\":".to_vec();
    out.extend_from_slice(&json(&neutralise(name)));
    out.extend_from_slice(b",\"version\":");
    out.extend_from_slice(&json(&neutralise(version)));
    if let Some(title) = value.get("title").and_then(Value::as_str) {
        out.extend_from_slice(b",\"title\":");
        out.extend_from_slice(&json(&neutralise(title)));
    }
    out.push(b'}');
    Some(out)
}

/// Returns the text as a JSON string.
fn json(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_str(text, &mut out);
    out
}
