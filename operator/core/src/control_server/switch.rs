//! The kill switch in messages to gateways.

use std::time::Instant;

use mcp_fleet_control::wire::{Freshness, KillSwitch};

use crate::kill_switch::{Known, Switch};
use crate::shared_state::Proof;

/// Returns the message with a proof; none if the gateway may not have it.
///
/// A proof says that calls are allowed as of its time, so it carries the kill switch, which was read with it. While the
/// switch is on, a gateway that does not obey it gets no proofs, and refuses calls once its policy is stale.
pub(super) fn freshness(proof: Proof, known: Option<&Known>, obeys_kill_switch: bool) -> Option<Freshness> {
    let known = known.filter(|known| obeys_kill_switch || !known.switch.is_on())?;
    let kill_switch = Some(to_wire(known));
    Some(Freshness { generation: proof.generation, age_ms: age_ms(proof.read), kill_switch })
}

/// Converts the state of the kill switch to the wire format.
pub(super) fn to_wire(Known { switch, read }: &Known) -> KillSwitch {
    let reason = match switch {
        Switch::Off => String::new(),
        // What is wrong with the ConfigMap is for those who can write it.
        Switch::On { reason, problem: _ } => reason.clone(),
    };
    KillSwitch { stop: switch.is_on(), reason, age_ms: age_ms(*read) }
}

fn age_ms(read: Instant) -> u32 {
    u32::try_from(read.elapsed().as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_proof_carries_the_switch_and_an_older_gateway_gets_none_while_it_is_on() {
        let now = Instant::now();
        let read = now.checked_sub(Duration::from_secs(5)).unwrap();
        let proof = Proof { generation: 7, read };
        let off = Known { switch: Switch::Off, read };
        let on = Known { switch: Switch::On { reason: "leak".into(), problem: None }, read };
        assert_eq!(freshness(proof, None, true), None, "the switch is not known");
        for obeys in [true, false] {
            let message = freshness(proof, Some(&off), obeys).unwrap();
            assert!(!message.kill_switch.unwrap().stop);
        }
        let message = freshness(proof, Some(&on), true).unwrap();
        assert!(message.generation == 7 && message.age_ms >= 5_000);
        let switch = message.kill_switch.unwrap();
        assert!(switch.stop && switch.reason == "leak" && switch.age_ms >= 5_000);
        assert_eq!(freshness(proof, Some(&on), false), None);
    }
}
