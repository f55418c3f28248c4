//! Listeners on loopback, with and without TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A stream with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Accepts connections on a free port, and serves each in its own task. Returns the address.
pub(super) async fn listen<F, S>(tls: Option<Arc<ServerConfig>>, serve: F) -> anyhow::Result<SocketAddr>
where
    F: Fn(Box<dyn Stream>, SocketAddr) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let tls = tls.map(TlsAcceptor::from);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (tls, serve) = (tls.clone(), serve.clone());
            tokio::spawn(async move {
                if let Ok(stream) = secure(stream, tls).await {
                    serve(stream, peer).await;
                }
            });
        }
    });
    Ok(address)
}

async fn secure(stream: TcpStream, tls: Option<TlsAcceptor>) -> std::io::Result<Box<dyn Stream>> {
    stream.set_nodelay(true)?;
    Ok(match tls {
        Some(tls) => Box::new(tls.accept(stream).await?),
        None => Box::new(stream),
    })
}
