//! What a server says of itself, read once for each of its starts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use mcp_fleet_policy::json::{Limits, Value, parse, write_str};
use mcp_fleet_policy::list::Observed;
use mcp_fleet_policy::text::neutralise;
use tokio::sync::Mutex;

use super::exchange::epoch;
use super::{Upstream, UpstreamError};
use crate::envelope::{SERVER_PATH, ServerReport, VERSION};

/// How long a report is taken as current without asking; a call's answer shows a new start at once.
const CURRENT: Duration = Duration::from_secs(5);
/// How long a question that was not answered is not asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the shim may take to answer from its memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest report that is read.
const LARGEST: usize = 4 << 20;

/// A report, ready for use.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The start of the server that it describes.
    pub(crate) epoch: u64,
    /// `serverInfo` and `instructions` of the server, as far as they can be shown.
    pub(crate) about: About,
    /// Its tools.
    pub(crate) tools: Observed,
    /// Of the text: a pod that was replaced counts its starts from one again.
    digest: [u8; 32],
}

/// What a client is told about the server itself; each is JSON.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// An `Implementation` object.
    pub(crate) server_info: Option<Vec<u8>>,
    /// A string.
    pub(crate) instructions: Option<Vec<u8>>,
}

/// The last report, and the newest epoch that any answer showed.
#[derive(Debug, Default)]
pub(super) struct Cache {
    report: ArcSwapOption<Report>,
    /// Milliseconds from `origin` to the last answer to the question for a report.
    asked: AtomicU64,
    origin: OnceLock<Instant>,
    seen: AtomicU64,
    /// Its turn to ask, and when the last question was not answered.
    reading: Mutex<Option<Instant>>,
}

impl Cache {
    /// Notes the epoch of an answer.
    pub(super) fn seen(&self, epoch: Option<u64>) {
        if let Some(epoch) = epoch
            && self.seen.load(Ordering::Relaxed) != epoch
        {
            self.seen.store(epoch, Ordering::Relaxed);
        }
    }

    fn current(&self, now: Instant) -> Option<Arc<Report>> {
        let report = self.report.load_full()?;
        let asked = *self.origin.get()? + Duration::from_millis(self.asked.load(Ordering::Relaxed));
        let fresh = now.saturating_duration_since(asked) < CURRENT;
        (fresh && report.epoch == self.seen.load(Ordering::Relaxed)).then_some(report)
    }

    /// Takes what was read just now. An unchanged report keeps its identity, and with it what was rendered from it.
    fn take(&self, report: Report, now: Instant) -> Arc<Report> {
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        self.asked.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.seen(Some(report.epoch));
        match self.report.load_full() {
            Some(before) if before.epoch == report.epoch && before.digest == report.digest => before,
            _ => {
                let report = Arc::new(report);
                self.report.store(Some(Arc::clone(&report)));
                report
            }
        }
    }
}

impl Upstream {
    /// The server's report; asks the shim if the one at hand may be out of date. While the server cannot be asked,
    /// the last one stands: what is listed must not depend on the weather.
    pub(crate) async fn report(&self) -> Result<Arc<Report>, UpstreamError> {
        if let Some(report) = self.report.current(Instant::now()) {
            return Ok(report);
        }
        let mut unanswered = self.report.reading.lock().await;
        if let Some(report) = self.report.current(Instant::now()) {
            return Ok(report);
        }
        if unanswered.is_some_and(|at| at.elapsed() < PAUSE) {
            // Whoever waited for this turn, and whoever asks in a loop, must not make each wait for the next.
            return self.report.report.load_full().ok_or(UpstreamError::Paused);
        }
        let read = tokio::time::timeout(PATIENCE, self.read_report())
            .await
            .unwrap_or_else(|_| Err(UpstreamError::Connect(std::io::ErrorKind::TimedOut.into())));
        *unanswered = read.is_err().then(Instant::now);
        match (read, self.report.report.load_full()) {
            (Ok(report), _) => Ok(self.report.take(report, Instant::now())),
            (Err(_), Some(before)) => Ok(before),
            (Err(error), None) => Err(error),
        }
    }

    async fn read_report(&self) -> Result<Report, UpstreamError> {
        let (mut connection, response) = self.request(Method::GET, SERVER_PATH, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(UpstreamError::Status(response.status()));
        }
        let epoch = epoch(response.headers()).ok_or(UpstreamError::Form("a report without its epoch"))?;
        let mut body = response.into_body();
        let mut text = BytesMut::new();
        while let Some(data) = connection.data(&mut body).await? {
            if text.len() + data.len() > LARGEST {
                return Err(UpstreamError::TooLarge);
            }
            text.extend_from_slice(&data);
        }
        drop(body);
        self.pool.put(connection, Instant::now());
        let report: ServerReport =
            serde_json::from_slice(&text).map_err(|_| UpstreamError::Form("a report that is not one"))?;
        if report.version != VERSION {
            return Err(UpstreamError::Form("a report of another version"));
        }
        Ok(Report {
            epoch,
            about: About::read(report.initialize.get()),
            tools: Observed::new(report.tools.iter().map(|tool| tool.get())),
            digest: *blake3::hash(&text).as_bytes(),
        })
    }
}

impl About {
    /// What can be shown of the `result` of `initialize`: names, as plain text.
    fn read(initialize: &str) -> Self {
        let Ok(value) = parse(initialize.as_bytes(), &Limits::RESULT) else { return Self::default() };
        Self {
            server_info: value.get("serverInfo").and_then(server_info),
            instructions: value.get("instructions").and_then(Value::as_str).map(|text| json(&neutralise(text))),
        }
    }
}

/// The members of an `Implementation` that are text, neutralised.
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

fn json(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_str(text, &mut out);
    out
}
