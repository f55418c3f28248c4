//! The report of a tool server: how it describes itself and its tools, read once for each of its starts. Until a server has
//! given one to this gateway, the one that the operator keeps is used.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::BytesMut;
use http::StatusCode;
use mcp_fleet_control::server_report::{MAX_REPORT, ReportError, decompress};
use mcp_fleet_policy::json::{Limits, Value, parse, write_str};
use mcp_fleet_policy::list::{Drift, MAX_INSTRUCTIONS, MAX_TITLE, ObservedTools, Pins};
use mcp_fleet_policy::text::shortened;
use tokio::sync::Mutex;

use super::exchange::epoch;
use super::outgoing::{Outgoing, ReportDigest, SeenReport};
use super::pod::Pod;
use super::{Server, Upstream, UpstreamError};
use crate::envelope::{SERVER_PATH, ServerReport, VERSION};

/// How long a report is used without asking the shim again. A call's answer shows a new start of the server earlier.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// Shortest time between a failed read of the report and the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that the shim may take to send the report, which it has in memory.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A parsed report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Epoch of the server when it gave this report: how often it had been started. 0 if the operator kept the report.
    pub(crate) epoch: u64,
    /// `serverInfo` and `instructions` of the server, made safe to show.
    pub(crate) about: About,
    /// The tools that the server offers; absent if it has not reported any yet.
    pub(crate) tools: Option<ObservedTools>,
    /// The definitions that the catalogue named when this was read. Some may be from an earlier report.
    pins: Arc<Pins>,
    /// BLAKE3 of the report. The epoch alone does not identify it: a replaced pod counts its starts from one again.
    digest: ReportDigest,
}

/// Report of servers that have not given one yet, always the same so that lists made from it are cached.
static NOTHING: LazyLock<Arc<Report>> = LazyLock::new(Arc::default);

impl Report {
    /// Returns what is known of a server that has not given a report yet: nothing beyond its catalogue.
    pub(crate) fn nothing() -> Arc<Self> {
        Arc::clone(&NOTHING)
    }

    /// Returns the tools of which the definition that the catalogue names is not known.
    fn drift(&self, pins: &Pins) -> Vec<Drift> {
        self.tools.as_ref().map(|tools| tools.drift(pins)).unwrap_or_default()
    }

    /// Takes the definitions that the catalogue names from another report, if this one no longer has them.
    fn keep(&mut self, other: &Self, pins: &Pins) {
        if let (Some(tools), Some(others)) = (&mut self.tools, &other.tools) {
            tools.keep(others, pins);
        }
    }

    /// Reads a report that the operator kept, with the same checks as one from a shim.
    pub(crate) fn from_kept(digest: &[u8], compressed: &[u8]) -> Result<Self, KeptError> {
        let text = decompress(compressed)?;
        let report = Self::parse(&text, 0)?;
        if report.digest == digest { Ok(report) } else { Err(KeptError::Digest) }
    }

    /// Reads the report of a server with this epoch.
    fn parse(text: &[u8], epoch: u64) -> Result<Self, UpstreamError> {
        let report: ServerReport =
            serde_json::from_slice(text).map_err(|_| UpstreamError::Malformed("the report cannot be parsed"))?;
        if report.version != VERSION {
            return Err(UpstreamError::Malformed("the report has another version"));
        }
        Ok(Self {
            epoch,
            about: About::read(report.initialize.get()),
            tools: Some(ObservedTools::new(report.tools.iter().map(|tool| tool.get()))),
            pins: Arc::default(),
            digest: *blake3::hash(text).as_bytes(),
        })
    }
}

/// Why a kept report is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error(transparent)]
    Compression(#[from] ReportError),
    #[error("failed to read a kept report: it is not what the operator names by its digest")]
    Digest,
    #[error("failed to parse a kept report")]
    Malformed(#[from] UpstreamError),
}

/// What a client learns about the server itself, as JSON.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// An `Implementation` object.
    pub(crate) server_info: Option<Vec<u8>>,
    /// A string.
    pub(crate) instructions: Option<Vec<u8>>,
}

/// The last report.
#[derive(Debug, Default)]
pub(super) struct ReportCache {
    last: ArcSwapOption<Read>,
    /// What the operator kept, until the server has given a report to this gateway.
    kept: ArcSwapOption<Report>,
    /// The report that the operator should keep.
    outgoing: Outgoing,
    /// Held while a report is read. Contains the time of the last read if it failed.
    failed_at: Mutex<Option<Instant>>,
}

/// A report that was read.
#[derive(Debug)]
struct Read {
    report: Arc<Report>,
    /// Pod that gave it.
    pod: Arc<Pod>,
    at: Instant,
}

impl ReportCache {
    fn last(&self) -> Option<Arc<Report>> {
        let read = self.last.load().as_ref().map(|read| Arc::clone(&read.report));
        read.or_else(|| self.kept.load_full())
    }

    /// Returns the last report, if it is fresh and from the current start of the server in one of these pods.
    fn fresh(&self, pods: &[Arc<Pod>], now: Instant) -> Option<Arc<Report>> {
        let last = self.last.load();
        let Read { report, pod, at } = &**last.as_ref()?;
        let is_fresh = now.saturating_duration_since(*at) < FRESH_FOR
            && report.epoch == pod.epoch()
            && pods.iter().any(|current| Arc::ptr_eq(current, pod));
        is_fresh.then(|| Arc::clone(report))
    }

    /// Stores a report that was just read. An unchanged report keeps its `Arc`, so that lists rendered from it stay
    /// valid.
    fn store(&self, mut report: Report, pod: &Arc<Pod>, at: Instant, pins: &Arc<Pins>) -> Arc<Report> {
        pod.note_epoch(Some(report.epoch));
        let report = match self.last() {
            Some(previous)
                if previous.epoch == report.epoch
                    && previous.digest == report.digest
                    && Arc::ptr_eq(&previous.pins, pins) =>
            {
                previous
            }
            previous => {
                for known in [previous, self.kept.load_full()].into_iter().flatten() {
                    report.keep(&known, pins);
                }
                report.pins = Arc::clone(pins);
                Arc::new(report)
            }
        };
        self.last.store(Some(Arc::new(Read { report: Arc::clone(&report), pod: Arc::clone(pod), at })));
        self.kept.store(None);
        report
    }
}

impl Upstream {
    /// Returns the server's report, and asks the shim for it if the cached one may be out of date. If the shim does not
    /// answer, returns the last report: a short outage must not change which tools are listed.
    pub(crate) async fn report(&self) -> Result<Arc<Report>, UpstreamError> {
        let Server { reports, health, pins, .. } = &*self.server;
        if let Some(report) = reports.fresh(&self.pods, Instant::now()) {
            return Ok(report);
        }
        let mut failed_at = reports.failed_at.lock().await;
        if let Some(report) = reports.fresh(&self.pods, Instant::now()) {
            return Ok(report);
        }
        if failed_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            // Requests that waited for the lock, and clients that retry, must not each wait for a timeout in turn.
            return reports.last().ok_or(UpstreamError::Paused);
        }
        let read = tokio::time::timeout(READ_TIMEOUT, self.read_report())
            .await
            .unwrap_or_else(|_| Err(UpstreamError::Connect(std::io::ErrorKind::TimedOut.into())));
        *failed_at = read.is_err().then(Instant::now);
        health.note(read.is_ok());
        match (read, reports.last()) {
            (Ok((report, pod)), _) => Ok(reports.store(report, pod, Instant::now(), &pins.load())),
            (Err(_), Some(previous)) => Ok(previous),
            (Err(error), None) => Err(error),
        }
    }

    /// Returns whether nothing is known of the server beyond its catalogue, or not the definitions that the catalogue names.
    pub(crate) fn lacks_report(&self) -> bool {
        let Server { reports, pins, .. } = &*self.server;
        reports.last().is_none_or(|last| !last.drift(&pins.load()).is_empty())
    }

    /// Uses a report that the operator kept until the server gives one, and for the definitions that the catalogue names.
    pub(crate) fn use_kept(&self, kept: Report) {
        let Server { reports, pins, .. } = &*self.server;
        let kept = Arc::new(kept);
        // A report of the server comes first in every case, so this may overlap with one.
        reports.kept.store(Some(Arc::clone(&kept)));
        reports.last.rcu(|read| {
            let read = read.as_ref()?;
            let mut report = Report::clone(&read.report);
            report.keep(&kept, &pins.load());
            Some(Arc::new(Read { report: Arc::new(report), pod: Arc::clone(&read.pod), at: read.at }))
        });
    }

    /// Returns the report that the operator should keep instead of the one with the digest `kept`, if it may be sent now.
    pub(crate) fn take_report_to_keep(&self, kept: Option<&ReportDigest>, now: Instant) -> Option<SeenReport> {
        self.server.reports.outgoing.take_due(kept, &self.server.pins.load(), now)
    }

    /// Returns whether a report that was just read lacks one of these definitions, which the catalogue names, and logs that
    /// when it is new.
    fn is_drifted(&self, report: &Report, pins: &Arc<Pins>) -> bool {
        let Server { reports, identity, .. } = &*self.server;
        let drift = report.drift(pins);
        if reports.last().is_none_or(|last| last.digest != report.digest || !Arc::ptr_eq(&last.pins, pins)) {
            for Drift { tool, expected, found } in &drift {
                let Some(found) = found else {
                    tracing::warn!(server = identity, tool, %expected, "the server does not list a tool whose definition the catalogue names");
                    continue;
                };
                tracing::warn!(
                    server = identity, tool, %expected, %found,
                    "a tool has another definition than the catalogue names, so agents see texts of that one only"
                );
            }
        }
        !drift.is_empty()
    }

    async fn read_report(&self) -> Result<(Report, &Arc<Pod>), UpstreamError> {
        let (pod, mut connection, response) = self.ask_any(SERVER_PATH).await?;
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
        pod.keep(connection);
        let report = Report::parse(&text, epoch)?;
        let pins = self.server.pins.load_full();
        if self.is_drifted(&report, &pins) {
            // The one that the operator keeps has the definitions that agents see.
            return Ok((report, pod));
        }
        if self.server.reports.outgoing.note(report.digest, &text, &pins) {
            let (server, bytes) = (&self.server.identity, text.len());
            tracing::warn!(server, bytes, "the operator does not keep the report of a server, because it is too large");
        }
        Ok((report, pod))
    }
}

impl About {
    /// Returns the number of bytes that an answer with this contains.
    pub(crate) fn length(&self) -> usize {
        [&self.server_info, &self.instructions].into_iter().flatten().map(Vec::len).sum()
    }

    /// Reads `serverInfo` and `instructions` from the `result` of `initialize`, neutralised and shortened.
    fn read(initialize: &str) -> Self {
        let Ok(value) = parse(initialize.as_bytes(), &Limits::RESULT) else { return Self::default() };
        Self {
            server_info: value.get("serverInfo").and_then(server_info),
            instructions: value
                .get("instructions")
                .and_then(Value::as_str)
                .map(|text| json(&shortened(text, MAX_INSTRUCTIONS))),
        }
    }
}

/// Returns name, version and title of an `Implementation` object, neutralised and shortened.
fn server_info(value: &Value<'_>) -> Option<Vec<u8>> {
    let (name, version) = (value.get("name")?.as_str()?, value.get("version")?.as_str()?);
    let mut out = b"{\"name\":".to_vec();
    out.extend_from_slice(&json(&shortened(name, MAX_TITLE)));
    out.extend_from_slice(b",\"version\":");
    out.extend_from_slice(&json(&shortened(version, MAX_TITLE)));
    if let Some(title) = value.get("title").and_then(Value::as_str) {
        out.extend_from_slice(b",\"title\":");
        out.extend_from_slice(&json(&shortened(title, MAX_TITLE)));
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
