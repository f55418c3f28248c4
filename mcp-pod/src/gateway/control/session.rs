//! One stream, from the dial to its end.

use std::time::Duration;

use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_control::{feature, version};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::dial::{DialError, Dialler};
use super::intake::Intake;
use super::message;
use crate::gateway::budget::Leases;

/// From the dialled connection to the operator's hello: it asks the API server about our token first.
const GREETING: Duration = Duration::from_secs(5);
/// A leader proves its freshness every couple of seconds; one that does not for this long is left for another.
const SILENCE: Duration = Duration::from_secs(10);
/// How often the book is looked at for reports that are due.
const TURN: Duration = Duration::from_millis(500);
/// A turn that comes this late says that the process stood still, and that what it reads now may have waited for it.
const STANDSTILL: Duration = Duration::from_secs(2);
/// Messages that wait to be sent; a stream that is this far behind is given up, never waited for.
const OUTBOX: usize = 4096;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("failed to keep the stream: the operator ended it: {}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("failed to keep the stream: the operator closed it")]
    Closed,
    #[error("failed to open the stream: no hello in time")]
    NoHello,
    #[error("failed to open the stream: the operator speaks version {0}, we {min} to {max}", min = version::MIN, max = version::MAX)]
    Version(u32),
    #[error("failed to keep the stream: no proof of freshness in time")]
    Silent,
    #[error("failed to keep the stream: the operator does not read what is sent")]
    Blocked,
    #[error("failed to keep the stream: this process stood still, and what it would read now may be old")]
    Standstill,
}

impl SessionEnd {
    /// Whether the other end was a replica that does not lead.
    pub(super) fn is_not_leader(&self) -> bool {
        matches!(self, Self::Status(status) if version::is_not_leader(status))
    }
}

impl From<Status> for SessionEnd {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Runs one stream to its end; `connected` is called once it stands.
pub(super) async fn run(dialler: &Dialler, intake: &Intake, leases: &Leases, connected: impl FnOnce()) -> SessionEnd {
    match open(dialler, intake, leases).await {
        Ok((inbound, outbox)) => {
            connected();
            tracing::info!("control stream is up");
            match (Stream { intake, leases, inbound, outbox }).serve().await {
                Ok(()) => SessionEnd::Closed,
                Err(end) => end,
            }
        }
        Err(end) => end,
    }
}

type Outbox = mpsc::Sender<wire::FromGateway>;

/// Dials and exchanges hellos.
async fn open(
    dialler: &Dialler,
    intake: &Intake,
    leases: &Leases,
) -> Result<(Streaming<wire::FromOperator>, Outbox), SessionEnd> {
    let (mut client, bearer) = dialler.dial().await?;
    let (outbox, waiting) = mpsc::channel(OUTBOX);
    let (generation, digest) = intake.enforced();
    let hello = wire::GatewayHello {
        min_version: version::MIN,
        max_version: version::MAX,
        features: feature::known(),
        epoch: leases.epoch().to_owned(),
        generation,
        digest,
    };
    send(&outbox, from_gateway::Message::Hello(hello))?;
    let mut request = Request::new(ReceiverStream::new(waiting));
    request.metadata_mut().insert("authorization", bearer);
    let greeting = async {
        let mut inbound = client.connect(request).await?.into_inner();
        let first = inbound.message().await?.and_then(|message| message.message);
        Ok::<_, SessionEnd>((inbound, first))
    };
    let (inbound, first) = timeout(GREETING, greeting).await.map_err(|_| SessionEnd::NoHello)??;
    let Some(from_operator::Message::Hello(wire::OperatorHello { version })) = first else {
        return Err(SessionEnd::NoHello);
    };
    if !(version::MIN..=version::MAX).contains(&version) {
        return Err(SessionEnd::Version(version));
    }
    Ok((inbound, outbox))
}

/// Never waits: a peer that does not read must not keep us from reading.
fn send(outbox: &Outbox, message: from_gateway::Message) -> Result<(), SessionEnd> {
    outbox.try_send(wire::FromGateway { message: Some(message) }).map_err(|_| SessionEnd::Blocked)
}

/// What ends a wait.
enum Event {
    /// A message, or the end of the stream.
    Received(Option<wire::FromOperator>),
    /// A call waits for a lease.
    Wanted,
    /// It is time to look at the book.
    Turn,
}

/// A stream that stands.
struct Stream<'a> {
    intake: &'a Intake,
    leases: &'a Leases,
    inbound: Streaming<wire::FromOperator>,
    outbox: Outbox,
}

impl Stream<'_> {
    /// Serves until the operator closes the stream, or an error.
    async fn serve(mut self) -> Result<(), SessionEnd> {
        self.leases.reconnected();
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_at = Instant::now() + SILENCE;
        loop {
            let since = Instant::now();
            let event = tokio::select! {
                received = self.inbound.message() => Event::Received(received?),
                () = self.leases.send_now() => Event::Wanted,
                _ = turns.tick() => Event::Turn,
                () = tokio::time::sleep_until(silent_at) => return Err(SessionEnd::Silent),
            };
            // A proof says how old it was when it was sent. After a standstill it may have lain here since.
            if since.elapsed() > STANDSTILL {
                return Err(SessionEnd::Standstill);
            }
            match event {
                Event::Received(None) => return Ok(()),
                Event::Received(Some(message)) => {
                    if let Some(from_operator::Message::Freshness(_)) = message.message {
                        silent_at = Instant::now() + SILENCE;
                    }
                    self.receive(message)?;
                }
                Event::Wanted => self.send_all()?,
                Event::Turn => {
                    self.leases.tick();
                    self.send_all()?;
                }
            }
        }
    }

    fn receive(&self, message: wire::FromOperator) -> Result<(), SessionEnd> {
        match message.message {
            Some(from_operator::Message::Policy(push)) => {
                let ack = self.intake.push(&push);
                send(&self.outbox, from_gateway::Message::Ack(ack))?;
            }
            Some(from_operator::Message::Freshness(proof)) => self.intake.fresh(&proof),
            Some(from_operator::Message::Lease(answer)) => self.leases.answer(message::answer(answer)),
            Some(from_operator::Message::SpendAck(ack)) => self.leases.acked(&ack.lease, ack.sequence),
            Some(from_operator::Message::Recall(recall)) => {
                self.leases.recall(&recall.lease);
                self.send_all()?;
            }
            // A second hello says nothing new. A message that this version does not know is not for it: what
            // must not be missed travels in the policy, which says so by itself.
            Some(from_operator::Message::Hello(_)) | None => {}
        }
        Ok(())
    }

    /// Reports go first: what they return can be leased again.
    fn send_all(&self) -> Result<(), SessionEnd> {
        for report in self.leases.take_reports() {
            send(&self.outbox, from_gateway::Message::Spend(message::report(report)))?;
        }
        for request in self.leases.take_requests() {
            send(&self.outbox, from_gateway::Message::LeaseRequest(message::request(request)))?;
        }
        Ok(())
    }
}
