//! Requests that do not wait for the answers to those before them, so that they come faster than a limit allows even if
//! the machine is busy.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Pki, Token, modern, tls};

/// Requests on one connection.
const BATCH: usize = 1000;

/// Sends the same message of 2026-07-28 with a token of the default principal, until at least `limited` requests are
/// answered with 429. Returns the statuses of the answers, in order.
pub(crate) async fn send_until_limited(
    (address, pki): (SocketAddr, &Pki),
    headers: &[(&str, &str)],
    body: &str,
    limited: usize,
) -> Vec<u16> {
    let token = pki.token(Token::default());
    let mut statuses = Vec::new();
    while statuses.iter().filter(|status| **status == 429).count() < limited {
        assert!(statuses.len() < 200 * BATCH, "never limited");
        let request = |connection: &str| {
            let mut head = format!(
                "POST /files/mcp HTTP/1.1\r\nhost: gateway.acme-mcp.svc\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
                 connection: {connection}\r\ncontent-length: {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                head.extend([name, ": ", value, "\r\n"]);
            }
            head + "\r\n" + body
        };
        let requests = request("keep-alive").repeat(BATCH - 1) + &request("close");
        let (mut answers, mut sender) = tokio::io::split(tls(address, pki).await);
        let (sent, received) = tokio::join!(sender.write_all(requests.as_bytes()), async {
            let mut received = Vec::new();
            // The gateway closes the connection without a TLS alert.
            let _ = answers.read_to_end(&mut received).await;
            String::from_utf8(received).unwrap()
        });
        sent.unwrap();
        let heads = received.split("HTTP/1.1 ").skip(1);
        let before = statuses.len();
        statuses.extend(heads.map(|head| head[..3].parse::<u16>().unwrap()));
        assert_eq!(statuses.len() - before, BATCH);
    }
    statuses
}

/// Sends calls of a tool that does not exist, until at least `limited` of them are answered with 429.
pub(crate) async fn call_until_limited(gateway: (SocketAddr, &Pki), limited: usize) -> Vec<u16> {
    let (body, headers) = modern("tools/call", serde_json::json!({"name": "no_such_tool", "arguments": {}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    send_until_limited(gateway, &headers, &body, limited).await
}
