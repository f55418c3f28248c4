//! Time from the start of a gateway until it is ready, with a mounted policy and a running operator.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::testbed::{Testbed, wait_ready};

/// Starts gateways and returns their times until ready, sorted.
pub(crate) async fn measure(testbed: &Testbed, starts: usize) -> anyhow::Result<Vec<Duration>> {
    let mut durations = Vec::new();
    for _ in 0..starts {
        let start = Instant::now();
        let gateway = testbed.new_gateway().await?;
        wait_ready(&gateway).await?;
        durations.push(start.elapsed());
    }
    durations.sort_unstable();
    Ok(durations)
}

/// Returns whether `/readyz` answers with status 200.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    let request = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head == *b"HTTP/1.1 200")
    };
    request.await.unwrap_or(false)
}
