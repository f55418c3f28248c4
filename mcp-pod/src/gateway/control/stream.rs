//! One control stream, from the dial to its end.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_audit::Head;
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_control::{feature, version};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::dial::{DialError, OperatorDialer};
use super::intake::Intake;
use super::message;
use super::server_reports::ServerReports;
use crate::gateway::budget::Leases;
use crate::tls::Served;

/// Longest time from the connection to the operator's hello. The operator first has the API server review the token.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without a proof of freshness. A leader sends one every few seconds; without it the gateway redials.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the leases are checked for reports that are due.
const TICK_PERIOD: Duration = Duration::from_millis(500);
/// How often the leader is told what calls are admitted by, which renews the lease.
const BEAT_PERIOD: Duration = Duration::from_secs(1);
/// How often the head of the audit log is sent, if there are new lines.
const HEAD_PERIOD: Duration = Duration::from_secs(30);
/// Longest wait for an event. A longer one shows that the process was paused, because there is a tick every
/// [`TICK_PERIOD`]. Messages that it reads then may be old.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Messages that can wait to be sent. A stream that is further behind is ended.
const OUTBOX_CAPACITY: usize = 4096;

/// Why a control stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("failed to keep the stream open: the operator ended it: {}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("failed to keep the stream open: the operator closed it")]
    Closed,
    #[error("failed to open the stream: no hello in time")]
    NoHello,
    #[error(
        "failed to open the stream: the operator speaks version {0}, this gateway {min} to {max}",
        min = version::MIN,
        max = version::MAX
    )]
    Version(u32),
    #[error(
        "failed to open the stream: the operator's term {0} is earlier than one that this gateway knows; if the cluster was \
         restored from a backup, restart the gateway"
    )]
    EarlierLeader(u64),
    #[error("failed to keep the stream open: no proof of freshness in time")]
    NoProof,
    #[error("failed to keep the stream open: the operator does not read its messages")]
    Blocked,
    #[error("failed to keep the stream open: this process was paused, and waiting messages may be old")]
    Paused,
}

impl StreamEnd {
    /// Returns whether the other end is a replica that is not the leader.
    pub(super) fn is_not_leader(&self) -> bool {
        matches!(self, Self::Status(status) if version::is_not_leader(status))
    }
}

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Runs one control stream to its end. Calls `connected` once it is open.
pub(super) async fn run(
    dialer: &OperatorDialer,
    intake: &Intake,
    leases: &Leases,
    connected: impl FnOnce(),
) -> StreamEnd {
    match open(dialer, intake, leases).await {
        Ok((inbound, outbox)) => {
            connected();
            tracing::info!("control stream is up");
            let heads = Heads { sent: None, next: Instant::now() };
            let reports = ServerReports::default();
            let stream =
                Stream { intake, leases, inbound, outbox, heads, reports, willing: false, served: Arc::default() };
            match stream.serve().await {
                Ok(()) => StreamEnd::Closed,
                Err(end) => end,
            }
        }
        Err(end) => end,
    }
}

type Outbox = mpsc::Sender<wire::FromGateway>;

/// Connects to the operator and exchanges hellos.
async fn open(
    dialer: &OperatorDialer,
    intake: &Intake,
    leases: &Leases,
) -> Result<(Streaming<wire::FromOperator>, Outbox), StreamEnd> {
    let (mut client, bearer) = dialer.dial().await?;
    let (outbox, outgoing) = mpsc::channel(OUTBOX_CAPACITY);
    let (generation, digest) = intake.enforced();
    let hello = wire::GatewayHello {
        min_version: version::MIN,
        max_version: version::MAX,
        features: feature::known(),
        epoch: leases.epoch().to_owned(),
        generation,
        digest,
        obeys_kill_switch: true,
        respects_homes: true,
    };
    send(&outbox, from_gateway::Message::Hello(hello))?;
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("authorization", bearer);
    let hello = async {
        let mut inbound = client.connect(request).await?.into_inner();
        let first = inbound.message().await?.and_then(|message| message.message);
        Ok::<_, StreamEnd>((inbound, first))
    };
    let (inbound, first) = timeout(HELLO_TIMEOUT, hello).await.map_err(|_| StreamEnd::NoHello)??;
    let Some(from_operator::Message::Hello(wire::OperatorHello { version, term, pod_uid })) = first else {
        return Err(StreamEnd::NoHello);
    };
    if !(version::MIN..=version::MAX).contains(&version) {
        return Err(StreamEnd::Version(version));
    }
    // Before any proof is received: without one, no call is admitted.
    if !intake.connect_leader(term, &pod_uid, leases.epoch()) {
        return Err(StreamEnd::EarlierLeader(term));
    }
    Ok((inbound, outbox))
}

/// Queues a message without waiting: an operator that does not read must not keep this gateway from reading.
fn send(outbox: &Outbox, message: from_gateway::Message) -> Result<(), StreamEnd> {
    outbox.try_send(wire::FromGateway { message: Some(message) }).map_err(|_| StreamEnd::Blocked)
}

/// An event that a stream waits for.
enum Event {
    /// A message arrived, or the stream ended.
    Received(Option<wire::FromOperator>),
    /// Requests or reports have to be sent at once.
    SendNow,
    /// The leases have to be checked.
    Tick,
    /// The lease of homes has to be renewed.
    Beat,
}

/// An open control stream.
struct Stream<'a> {
    intake: &'a Intake,
    leases: &'a Leases,
    inbound: Streaming<wire::FromOperator>,
    outbox: Outbox,
    heads: Heads,
    reports: ServerReports,
    /// Whether the last beat said that the gateway can be a home.
    willing: bool,
    /// The public names that this stream has reported; none before the first report.
    served: Arc<Served>,
}

/// Which head of the audit log was sent on this stream, and when the next one is due.
struct Heads {
    sent: Option<Head>,
    next: Instant,
}

impl Heads {
    /// Returns the head to send now, if any. The last one of a process that ends is sent at once.
    fn take(&mut self, head: Option<Head>, ends: bool) -> Option<Head> {
        let now = Instant::now();
        let head = head.filter(|head| self.sent != Some(*head) && (ends || now >= self.next))?;
        *self = Self { sent: Some(head), next: now + HEAD_PERIOD };
        Some(head)
    }
}

impl Stream<'_> {
    /// Serves the stream until the operator closes it or an error occurs.
    async fn serve(mut self) -> Result<(), StreamEnd> {
        self.leases.resend_unanswered();
        let mut ticks = interval(TICK_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = interval(BEAT_PERIOD);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut proof_deadline = Instant::now() + PROOF_TIMEOUT;
        loop {
            let started = Instant::now();
            let event = tokio::select! {
                received = self.inbound.message() => Event::Received(received?),
                () = self.leases.something_to_send() => Event::SendNow,
                () = self.intake.home_beat_due() => Event::Beat,
                _ = beats.tick() => Event::Beat,
                _ = ticks.tick() => Event::Tick,
                () = tokio::time::sleep_until(proof_deadline) => return Err(StreamEnd::NoProof),
            };
            // A proof carries the age it had when it was sent. After a pause it may have waited here for as long.
            if started.elapsed() > MAX_WAIT {
                return Err(StreamEnd::Paused);
            }
            match event {
                Event::Received(None) => return Ok(()),
                Event::Received(Some(message)) => {
                    if let Some(from_operator::Message::Freshness(_)) = message.message {
                        proof_deadline = Instant::now() + PROOF_TIMEOUT;
                    }
                    self.receive(message)?;
                }
                Event::SendNow => self.send_all()?,
                Event::Tick => {
                    self.leases.expire_leases();
                    self.send_all()?;
                    self.send_server_reports()?;
                }
                Event::Beat => self.send_beat()?,
            }
            // The operator has just sent the first proof, or this gateway has become ready otherwise.
            if self.willing != self.intake.is_ready() {
                self.send_beat()?;
            }
            self.send_served()?;
        }
    }

    fn receive(&mut self, message: wire::FromOperator) -> Result<(), StreamEnd> {
        match message.message {
            Some(from_operator::Message::Policy(push)) => {
                let ack = self.intake.handle_push(&push);
                send(&self.outbox, from_gateway::Message::Ack(ack))?;
            }
            Some(from_operator::Message::Freshness(proof)) => self.intake.handle_proof(&proof),
            Some(from_operator::Message::KillSwitch(switch)) => self.intake.handle_kill_switch(&switch),
            Some(from_operator::Message::HomeAnswer(answer)) => {
                if self.intake.handle_home_answer(answer) {
                    self.send_beat()?;
                }
            }
            Some(from_operator::Message::HomesChanged(_)) => self.send_beat()?,
            Some(from_operator::Message::Lease(mut answer)) => {
                let balance = answer.balance.take();
                self.leases.answer(message::answer_from_wire(answer));
                self.note_balance(balance);
            }
            Some(from_operator::Message::SpendAck(wire::SpendAck { lease, sequence, balance })) => {
                self.leases.acknowledge_report(&lease, sequence);
                self.note_balance(balance);
            }
            Some(from_operator::Message::Recall(recall)) => {
                self.leases.return_lease(&recall.lease);
                self.send_all()?;
            }
            Some(from_operator::Message::KeptServerReports(kept)) => {
                self.reports.learn(kept);
                self.send_server_reports()?;
            }
            Some(from_operator::Message::KeptServerReport(kept)) => self.intake.handle_kept_report(kept),
            // A second hello carries nothing new. Messages that this version does not know are ignored: whatever a
            // gateway must understand is in the policy, which lists the features that it requires.
            Some(from_operator::Message::Hello(_)) | None => {}
        }
        Ok(())
    }

    fn note_balance(&self, balance: Option<wire::BudgetBalance>) {
        balance.map(message::balance_from_wire).into_iter().for_each(|balance| self.leases.note_balance(balance));
    }

    /// Tells the leader what calls are admitted by, if it decides homes.
    fn send_beat(&mut self) -> Result<(), StreamEnd> {
        self.willing = self.intake.is_ready();
        match self.intake.home_beat(self.willing) {
            Some(beat) => send(&self.outbox, from_gateway::Message::HomeBeat(beat)),
            None => Ok(()),
        }
    }

    /// Sends what there is to say about the reports of tool servers, if the operator keeps them.
    fn send_server_reports(&mut self) -> Result<(), StreamEnd> {
        let messages = self.reports.messages(self.intake, std::time::Instant::now());
        messages.into_iter().try_for_each(|message| send(&self.outbox, message))
    }

    /// Tells the leader which public names are served, if it does not know.
    fn send_served(&mut self) -> Result<(), StreamEnd> {
        let served = self.intake.served();
        if Arc::ptr_eq(&served, &self.served) || served.is_empty() && self.served.is_empty() {
            return Ok(());
        }
        send(&self.outbox, from_gateway::Message::PublicCertificates(message::served_to_wire(&served)))?;
        self.served = served;
        Ok(())
    }

    /// Sends all reports, requests and events. Reports go first, because what they return can be leased again.
    fn send_all(&mut self) -> Result<(), StreamEnd> {
        let ends = self.leases.is_closed();
        if let Some(head) = self.heads.take(self.intake.audit_head(), ends) {
            send(&self.outbox, from_gateway::Message::AuditHead(message::head_to_wire(head)))?;
        }
        if ends {
            self.intake.set_reported();
        }
        for report in self.leases.take_reports() {
            send(&self.outbox, from_gateway::Message::Spend(message::report_to_wire(report)))?;
        }
        for request in self.leases.take_lease_requests() {
            send(&self.outbox, from_gateway::Message::LeaseRequest(message::request_to_wire(request)))?;
        }
        for report in self.intake.take_stuck_reports() {
            send(&self.outbox, from_gateway::Message::Stuck(message::stuck_to_wire(report)))?;
        }
        for report in self.intake.take_loop_reports() {
            send(&self.outbox, from_gateway::Message::Loop(message::loop_to_wire(report)))?;
        }
        Ok(())
    }
}
