//! A gateway that does not do what a gateway should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_pod::tls::{Identity, server_config_mutual};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::pki::GATEWAY_URI;

/// What a fake home does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Reads and never answers.
    Silence,
    /// Asks for the body, and closes the connection once it has some of it.
    Break,
    /// Answers the first request of each connection, and does the same as [`Self::Break`] with the second.
    BreakSecond,
    /// Says to the first request that it is not the home, and answers the others.
    HesitateOnce,
}

/// A listener that takes forwarded requests.
pub(crate) struct FakeHome {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// Bytes that came after the heads of requests whose bodies it did not ask for.
    unasked: AtomicUsize,
}

impl FakeHome {
    /// Starts a fake home with this certificate.
    pub(crate) async fn start(identity: &Arc<Identity>, misdeed: Misdeed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(server_config_mutual(Arc::clone(identity), GATEWAY_URI).unwrap());
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, counts) = (acceptor.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        // The edge may hang up at any time.
                        let _ = misbehave(stream, misdeed, &counts).await;
                    }
                });
            }
        });
        Self { address, counts }
    }

    /// Returns how many requests it has received.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Returns how many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Returns how many bytes of bodies it has received that it did not ask for.
    pub(crate) fn unasked(&self) -> usize {
        self.counts.unasked.load(Ordering::SeqCst)
    }
}

async fn misbehave(mut stream: TlsStream<TcpStream>, misdeed: Misdeed, counts: &Counts) -> std::io::Result<()> {
    let mut is_first = true;
    loop {
        let length = read_head(&mut stream).await?;
        let is_first_of_all = counts.requests.fetch_add(1, Ordering::SeqCst) == 0;
        if misdeed == Misdeed::HesitateOnce && is_first_of_all {
            let refusal = "HTTP/1.1 421 Misdirected Request\r\nmcp-fleet-not-home: 1\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refusal.as_bytes()).await?;
            return stream.shutdown().await;
        }
        if misdeed != Misdeed::Silence {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.flush().await?;
        }
        let answers = misdeed == Misdeed::BreakSecond && std::mem::take(&mut is_first);
        if answers || misdeed == Misdeed::HesitateOnce {
            stream.read_exact(&mut vec![0; length]).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
            stream.flush().await?;
            continue;
        }
        if misdeed != Misdeed::Silence {
            stream.read_u8().await?;
        }
        if matches!(misdeed, Misdeed::Break | Misdeed::BreakSecond) {
            return Ok(());
        }
        // Until the edge hangs up.
        loop {
            stream.read_u8().await?;
            if misdeed == Misdeed::Silence {
                counts.unasked.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Reads the head of a request. Returns the length of its body.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> std::io::Result<usize> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    Ok(length.unwrap_or("0").parse().unwrap())
}
