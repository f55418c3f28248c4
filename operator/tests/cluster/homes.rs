//! One gateway of a tenant admits calls, and another one takes over.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use mcp_fleet_control::clock::boot_millis;
use mcp_fleet_control::homes::{Usage, answer_from_wire, beat_to_wire};
use mcp_fleet_control::wire::from_gateway;
use mcp_fleet_homes::gateway::Gateway as Homes;
use mcp_fleet_homes::message::Instruction;
use mcp_fleet_homes::view::Member;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::with_operator;

/// Connects a gateway, and waits for its policy.
async fn connect(client: &kube::Client, runtime: &str) -> (Gateway, Homes) {
    let mut gateway = Gateway::connect(client, runtime).await;
    gateway.policy(|_| true).await;
    let member = Member { pod_uid: gateway.hello.pod_uid.as_str().into(), epoch: gateway.pod.as_str().into() };
    let mut homes = Homes::new(member);
    assert!(gateway.hello.term > 0 && homes.connect(gateway.hello.term));
    (gateway, homes)
}

/// Sends a beat and obeys the answer. Returns how long other gateways may have leases, in milliseconds.
async fn beat(gateway: &mut Gateway, homes: &mut Homes, willing: bool) -> (Instruction, u64) {
    let beat = homes.beat(boot_millis(), willing);
    gateway.send(from_gateway::Message::HomeBeat(beat_to_wire(&beat, Usage::default()))).await;
    loop {
        if let Some(answer) = gateway.home_answer().await {
            let (answer, others) = answer_from_wire(answer).unwrap();
            assert_eq!(answer.number, beat.number);
            homes.receive(boot_millis(), answer.clone());
            return (answer.instruction, others.end_ms);
        }
    }
}

/// Sends a beat whenever homes change, until the gateway admits calls.
async fn becomes_home(gateway: &mut Gateway, homes: &mut Homes) {
    while !homes.admits(boot_millis(), "p") {
        if beat(gateway, homes, true).await.0 == Instruction::Wait {
            while gateway.home_answer().await.is_some() {}
        }
    }
}

#[tokio::test]
async fn one_gateway_is_home_until_it_hands_over_or_its_pod_is_gone() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let runtime = format!("{name}-mcp");
    let (mut first, mut first_homes) = connect(&client, &runtime).await;
    becomes_home(&mut first, &mut first_homes).await;

    let (mut second, mut second_homes) = connect(&client, &runtime).await;
    let (instruction, others_end_ms) = beat(&mut second, &mut second_homes, true).await;
    assert_eq!(instruction, Instruction::Wait);
    // The policy of the test may be stale for a minute.
    assert!((1..=68_600).contains(&others_end_ms), "{others_end_ms}");
    // The first drains: it is told of the next view, and the second of that it may apply it.
    let (instruction, _) = beat(&mut first, &mut first_homes, false).await;
    assert!(matches!(instruction, Instruction::Prepare(_)), "{instruction:?}");
    assert!(!first_homes.admits(boot_millis(), "p") && !second_homes.admits(boot_millis(), "p"));
    beat(&mut first, &mut first_homes, false).await;
    becomes_home(&mut second, &mut second_homes).await;

    // The second is lost without a word. Its pod is deleted, and the API server no longer has it.
    let (mut third, mut third_homes) = connect(&client, &runtime).await;
    assert_eq!(beat(&mut third, &mut third_homes, true).await.0, Instruction::Wait);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &runtime);
    pods.delete(&second.pod, &DeleteParams::default()).await.unwrap();
    drop(second);
    while !third_homes.admits(boot_millis(), "p") {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        beat(&mut third, &mut third_homes, true).await;
        assert!(second_homes.admits(boot_millis(), "p"), "the test shows nothing: the lease has ended");
    }
}
