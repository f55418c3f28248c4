//! Agents with addresses of IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use serde_json::json;

use crate::support::{Client, TestGateway, Token};

#[tokio::test]
async fn agents_of_both_families_of_addresses_are_served() {
    let gateway = TestGateway::new().await;
    let port = gateway.listen_on_both().await;
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    // Not every machine has IPv6.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push(Ipv6Addr::LOCALHOST.into());
    }
    for address in addresses {
        let token = gateway.pki.token(Token::default());
        let mut client = Client::connect((address, port).into(), &gateway.pki, Some(&token)).await;
        assert_eq!(client.call("echo", json!({})).await.status, 200, "{address}");
    }
}
