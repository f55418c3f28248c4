//! From exec to ready, with the policy already mounted and the operator there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stage::{Stage, wait_ready};

/// Durations of some starts, sorted.
pub(crate) async fn measure(stage: &Stage, starts: usize) -> anyhow::Result<Vec<Duration>> {
    let mut durations = Vec::new();
    for _ in 0..starts {
        let start = Instant::now();
        let gateway = stage.fresh_gateway().await?;
        wait_ready(&gateway).await?;
        durations.push(start.elapsed());
    }
    durations.sort_unstable();
    Ok(durations)
}

/// Whether `/readyz` answers 200.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head == *b"HTTP/1.1 200")
    };
    ask.await.unwrap_or(false)
}
