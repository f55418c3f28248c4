//! A gateway that does not do what a gateway should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_pod::tls::{Identity, server_config_mutual};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::pki::GATEWAY_URI;

/// What a fake home does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Reads and never answers.
    Silence,
    /// Asks for the body and never answers.
    Hang,
    /// Asks for the body, and closes the connection once it has some of it.
    Break,
}

/// A listener that takes forwarded requests.
pub(crate) struct FakeHome {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl FakeHome {
    /// Starts a fake home with this certificate.
    pub(crate) async fn start(identity: &Arc<Identity>, misdeed: Misdeed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(server_config_mutual(Arc::clone(identity), GATEWAY_URI).unwrap());
        let (requests, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (received, accepted) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, received) = (acceptor.clone(), Arc::clone(&received));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    received.fetch_add(1, Ordering::SeqCst);
                    if misdeed != Misdeed::Silence {
                        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                        stream.flush().await.unwrap();
                        stream.read_u8().await.unwrap();
                    }
                    if misdeed != Misdeed::Break {
                        // Until the edge hangs up.
                        while stream.read_u8().await.is_ok() {}
                    }
                });
            }
        });
        Self { address, requests, connections }
    }

    /// Returns how many requests it has received.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns how many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
