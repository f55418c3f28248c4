//! Whether a process answers its readiness probe.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long processes may take to start before that is reported.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often they are asked.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

/// Returns whether the process with this address for probes is ready.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    let answer = tokio::time::timeout(Duration::from_secs(2), ask(address)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
